//! Both reactors keep the same promises.

use std::cell::Cell;
use std::io::{IoSlice, Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_lite::future::{poll_fn, yield_now};

use super::*;
use crate::io::clock::{Instant, deadline, sleep};
use crate::io::executor::Executors;

/// Those that this machine allows.
pub(in crate::io) fn reactors() -> Vec<Reactor> {
    let io_uring = probe::io_uring(1).is_ok().then_some(Reactor::IoUring);
    io_uring.into_iter().chain([Reactor::Epoll]).collect()
}

const PATIENCE: Duration = Duration::from_secs(30);
const ANYWHERE: Place = Place { number: 0, core: None };

/// The result of a future that runs on an executor of this kind.
pub(in crate::io) fn run<T, F>(reactor: Reactor, make: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (give, given) = flume::bounded(1);
    let mut executors = Executors::new(reactor);
    executors
        .start(ANYWHERE, move || async move {
            give.send(make().await).map_err(|_| Fault::new("nobody waits for it"))
        })
        .unwrap();
    executors.watch();
    executors.join().unwrap();
    given.recv().unwrap()
}

/// On a machine where every thread is interrupted all the time, as a loaded one does.
#[test]
#[allow(clippy::disallowed_methods, reason = "the load is made of threads")]
fn executors_begin_however_loaded_the_machine_is() {
    let over = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let reactors = reactors();
    for round in 0..100 {
        let reactor = reactors[round % reactors.len()];
        let (done, result) = flume::bounded(1);
        let mut executors = Executors::new(reactor);
        let place = Place { number: 0, core: Some(round / 2 % 2) };
        executors
            .start(place, move || async move {
                yield_now().await;
                done.send(()).map_err(|_| Fault::new("nobody listens"))
            })
            .unwrap();
        executors.watch();
        assert_eq!(result.recv_timeout(PATIENCE), Ok(()), "round {round}, {reactor:?}");
        executors.join().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_core_that_the_machine_lacks_is_refused() {
    for reactor in reactors() {
        let mut executors = Executors::new(reactor);
        let started = executors.start(Place { number: 1, core: Some(5000) }, || async { Ok(()) });
        let fault = started.and_then(|()| executors.join()).expect_err("there is no such core");
        assert!(fault.to_string().starts_with("executor 1 cannot start on core 5000"), "{fault}");
    }
}

/// Wake-ups by other threads just as the executor falls asleep.
#[test]
#[allow(clippy::disallowed_methods, reason = "the other side is a thread")]
fn no_wake_by_another_thread_is_lost() {
    for reactor in reactors() {
        let (ask, asked) = flume::bounded::<u32>(1);
        let (answer, answered) = flume::bounded(1);
        let other = std::thread::spawn(move || {
            for number in 0..5_000 {
                ask.send(number).unwrap();
                assert_eq!(answered.recv_timeout(PATIENCE), Ok(number), "{reactor:?}");
            }
        });
        run(reactor, || async move {
            while let Ok(number) = asked.recv_async().await {
                answer.send_async(number).await.unwrap();
            }
        });
        other.join().unwrap();
    }
}

/// Tasks that are left when an executor ends are dropped, on its thread, while others wake them.
#[test]
#[allow(clippy::disallowed_methods, reason = "the other side is a thread")]
fn what_is_left_of_an_executor_on_epoll_is_dropped() {
    let (waker, wakers) = flume::unbounded::<std::task::Waker>();
    let other = std::thread::spawn(move || wakers.iter().for_each(|waker| waker.wake()));
    let dropped = Arc::new(AtomicU64::new(0));
    struct Counts(Arc<AtomicU64>, Rc<()>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::clone(&dropped);
    run(Reactor::Epoll, move || async move {
        for _ in 0..1_000 {
            let (counts, waker) = (Counts(Arc::clone(&count), Rc::default()), waker.clone());
            spawn(Rank::Member, async move {
                let counts = counts;
                poll_fn(|context| {
                    let _ = (&counts.1, waker.send(context.waker().clone()));
                    std::task::Poll::<()>::Pending
                })
                .await;
            });
        }
        yield_now().await;
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 1_000);
    other.join().unwrap();
}

/// Connections that are ready all the time delay a task of the member by less than a turn of each.
#[test]
fn tasks_of_the_member_do_not_wait_for_all_clients() {
    const CLIENTS: u64 = 200;
    const TURNS: u64 = 50;
    for reactor in reactors() {
        let (told, ran) = flume::bounded(1);
        run(reactor, move || async move {
            let (over, ran) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
            for _ in 0..CLIENTS {
                let (over, ran) = (Rc::clone(&over), Rc::clone(&ran));
                spawn(Rank::Client, async move {
                    while !over.get() {
                        let began = Instant::now();
                        while began.elapsed() < Duration::from_micros(50) {}
                        ran.set(ran.get() + 1);
                        yield_now().await;
                    }
                });
            }
            let (done, is_done) = flume::bounded(1);
            spawn(Rank::Member, async move {
                for _ in 0..TURNS {
                    yield_now().await;
                }
                let _ = done.send(());
            });
            is_done.recv_async().await.unwrap();
            told.send(ran.get()).unwrap();
            over.set(true);
        });
        let ran: u64 = ran.recv().unwrap();
        assert!(ran < CLIENTS * TURNS / 2, "{reactor:?}: {ran}");
    }
}

/// A pair of connected sockets, one of them of this executor.
async fn pair() -> (Stream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = Stream::connect_tcp(listener.local_addr().unwrap()).await.unwrap();
    (stream, listener.accept().unwrap().0)
}

async fn read(stream: &mut Stream, into: &mut [u8]) -> std::io::Result<usize> {
    poll_fn(|context| stream.poll_read(context, into)).await
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the other side is a thread")]
fn bytes_come_whole_and_in_order_whatever_blocks() {
    const BYTES: usize = 8 << 20;
    let byte = |at: usize| (at % 251) as u8;
    for reactor in reactors() {
        run(reactor, move || async move {
            let (mut stream, mut other) = pair().await;
            let echo = std::thread::spawn(move || {
                let (mut buffer, mut total) = (vec![0; 100_000], 0);
                // Slower than what comes, so that the writer has to wait.
                while total < BYTES {
                    let count = other.read(&mut buffer).unwrap();
                    let whole = buffer[..count].iter().enumerate();
                    assert!(whole.into_iter().all(|(at, it)| *it == byte(total + at)));
                    total += count;
                    if total % 7 == 0 {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
                other.write_all(b"all of it").unwrap();
            });
            let bytes: Vec<u8> = (0..BYTES).map(byte).collect();
            let mut sent = 0;
            while sent < BYTES {
                let rest = &bytes[sent..];
                let (first, second) = rest.split_at(rest.len().min(10_000));
                let parts = [IoSlice::new(first), IoSlice::new(&[]), IoSlice::new(second)];
                sent +=
                    poll_fn(|context| stream.poll_write_vectored(context, &parts)).await.unwrap();
            }
            let mut answer = [0; 64];
            let mut length = 0;
            while length < 9 {
                length += read(&mut stream, &mut answer[length..]).await.unwrap();
            }
            assert_eq!(&answer[..length], b"all of it", "{reactor:?}");
            // The other end is gone: told by a read that comes after what told of it.
            let ended = deadline(PATIENCE, read(&mut stream, &mut answer)).await;
            assert_eq!(ended.unwrap().unwrap(), 0, "{reactor:?}");
            echo.join().unwrap();
        });
    }
}

/// The end may be told together with the last bytes, and never again.
#[test]
fn an_end_behind_a_short_read_is_seen() {
    for reactor in reactors() {
        run(reactor, move || async move {
            for _ in 0..200 {
                let (mut stream, mut other) = pair().await;
                other.write_all(b"x").unwrap();
                drop(other);
                let mut into = [0; 64];
                for expected in [1, 0, 0] {
                    let count = deadline(PATIENCE, read(&mut stream, &mut into)).await;
                    assert_eq!(count.unwrap().unwrap(), expected, "{reactor:?}");
                }
            }
        });
    }
}

#[test]
fn unix_sockets_are_connected_and_accepted() {
    let dir = tempfile::tempdir().unwrap();
    for reactor in reactors() {
        let path = dir.path().join(reactor.name()).to_string_lossy().into_owned();
        run(reactor, move || async move {
            let std = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let listener = Listener::new(std.into()).unwrap();
            let mut client = Stream::connect_unix(&path).await.unwrap();
            let mut server = listener.accept().await.unwrap().bind().unwrap();
            assert_eq!(poll_fn(|context| client.poll_write(context, b"hi")).await.unwrap(), 2);
            let mut into = [0; 8];
            assert_eq!(read(&mut server, &mut into).await.unwrap(), 2, "{reactor:?}");
            client.shut_down().unwrap();
            assert_eq!(read(&mut server, &mut into).await.unwrap(), 0, "{reactor:?}");
        });
    }
}

/// Tasks that wake each other for ever keep neither sockets, nor timers, nor other threads' wakes waiting; thousands of
/// ready sockets keep none of their own kind waiting.
#[test]
fn all_have_their_turn() {
    const SOCKETS: usize = 2_000;
    for reactor in reactors() {
        run(reactor, move || async move {
            let over = Rc::new(Cell::new(false));
            for _ in 0..4 {
                let over = Rc::clone(&over);
                spawn(Rank::Member, async move {
                    while !over.get() {
                        yield_now().await;
                    }
                });
            }
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let served = Rc::new(Cell::new(0));
            let mut others = Vec::new();
            for _ in 0..SOCKETS {
                let mut stream = Stream::connect_tcp(address).await.unwrap();
                let (mut other, _) = listener.accept().unwrap();
                other.write_all(b"x").unwrap();
                others.push(other);
                let served = Rc::clone(&served);
                spawn(Rank::Client, async move {
                    assert_eq!(read(&mut stream, &mut [0; 1]).await.unwrap(), 1);
                    served.set(served.get() + 1);
                    // Open until the end.
                    std::future::pending::<()>().await;
                });
            }
            let all = async {
                while served.get() < SOCKETS {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            assert!(deadline(PATIENCE, all).await.is_some(), "{reactor:?}: {}", served.get());
            over.set(true);
        });
    }
}

/// Wakes of an idle executor in a second.
const IDLE_WAKES_MAX: f64 = 4.0;

/// How often the threads whose names begin so have gone to sleep.
fn sleeps(prefix: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_prefix = tasks.filter(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.starts_with(prefix)
    });
    let switches = of_prefix.map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
    });
    switches.sum()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it waits for executors that do nothing")]
fn idle_executors_sleep() {
    for (kind, reactor) in reactors().into_iter().enumerate() {
        let mut executors = Executors::new(reactor);
        let (stop, stopped) = flume::bounded::<()>(1);
        let numbers = 1000 * (kind + 1)..1000 * (kind + 1) + 64;
        for number in numbers.clone() {
            let stopped = stopped.clone();
            executors
                .start(Place { number, core: None }, move || async move {
                    let _ = stopped.recv_async().await;
                    Ok(())
                })
                .unwrap();
        }
        executors.watch();
        let woken =
            || -> u64 { numbers.clone().map(|number| sleeps(&format!("executor-{number}"))).sum() };
        let (before, began) = (woken(), Instant::now());
        std::thread::sleep(Duration::from_secs(2));
        let rate = (woken() - before) as f64 / began.elapsed().as_secs_f64() / 64.0;
        assert!(rate < IDLE_WAKES_MAX, "{reactor:?}: each is woken {rate:.1} times a second");
        drop(stop);
        executors.join().unwrap();
    }
}
