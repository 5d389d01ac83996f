//! Distribution of connections over executors, and timeouts of HTTP requests.

use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, channel};

use super::*;
use crate::io::reactor::tests::{reactors, run};
use crate::io::spawn;

#[test]
fn a_connection_goes_to_the_executor_with_the_fewest() {
    let dir = tempfile::tempdir().unwrap();
    for reactor in reactors() {
        let path = dir.path().join(reactor.name()).to_string_lossy().into_owned();
        run(reactor, move || async move {
            let ((first, at_first), (second, at_second)) = (handover(), handover());
            let listener = listen(&Address::Unix(path.clone())).unwrap();
            spawn(listener.accept(Lane::Clients, 7, vec![first, second], None));
            let mut clients = Vec::new();
            let mut connect = || {
                clients.push(std::os::unix::net::UnixStream::connect(&path).unwrap());
            };

            connect();
            let alone = at_first.recv_async().await.unwrap().open().unwrap();
            assert_eq!((alone.port(), alone.peer().as_str()), (7, "@"));
            connect();
            let _other = at_second.recv_async().await.unwrap().open();
            // One for each: the first executor is next.
            connect();
            let third = at_first.recv_async().await.unwrap().open();
            // Two connections of the first executor have closed, so that it has fewer.
            drop((alone, third));
            connect();
            let _fourth = at_first.recv_async().await.unwrap().open();
            assert!(at_second.is_empty());
        });
    }
}

/// If the descriptor is closed twice, another file of the process may have that number by then.
#[test]
fn a_connection_that_was_reset_before_it_was_looked_at_closes_nothing_else() {
    for reactor in reactors() {
        run(reactor, || async move {
            let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = probe.local_addr().unwrap();
            drop(probe);
            let (door, connections) = handover();
            spawn(listen(&Address::Tcp(address.to_string())).unwrap().accept(
                Lane::Clients,
                0,
                vec![door],
                None,
            ));
            for _ in 0..100 {
                let client = std::net::TcpStream::connect(address).unwrap();
                rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
                drop(client);
                let Some(reset) = connections.recv_async().await.unwrap().open() else { continue };
                let _ = reset.peer();
                let file = tempfile::tempfile().unwrap();
                drop(reset);
                file.metadata().expect("still open");
            }
        });
    }
}

#[test]
fn slow_response_times_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asking, over) = channel::<()>();
    let dripping = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while over.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
            // The client may have disconnected.
            let _ = stream.write_all(b"x");
        }
    });
    assert!(Dialer::default().get(&url, "/version", Duration::from_millis(200)).is_err());
    drop(asking);
    dripping.join().unwrap();
}

#[test]
fn a_url_of_a_member_leads_to_a_port_or_a_socket() {
    let tcp = |address: &str| Address::Tcp(address.to_owned());
    let unix = |path: &str| Address::Unix(path.to_owned());
    assert_eq!(Address::of_url("http://127.0.0.1:2380"), tcp("127.0.0.1:2380"));
    assert_eq!(Address::of_url("http://[::1]:2380/"), tcp("[::1]:2380"));
    assert_eq!(Address::of_url("unix://localhost:1"), unix("localhost:1"));
    assert_eq!(Address::of_url("unix:///run/peer.sock"), unix("/run/peer.sock"));
}

#[test]
fn all_addresses_of_a_name_are_tried_until_one_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    // The listener of this address was just closed.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for reactor in reactors() {
        let (first, refused) = run(reactor, move || async move {
            let wait = Duration::from_secs(5);
            let first = wire::connect_first(&[closed, closed, open], wait).await.is_ok();
            let refused =
                wire::connect_first(&[closed], wait).await.err().map(|error| error.kind());
            (first, refused)
        });
        assert!(first, "{reactor:?}: the last address answers");
        assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused), "{reactor:?}");
        assert!(listener.accept().is_ok());
    }
}
