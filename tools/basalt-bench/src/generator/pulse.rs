//! Measures the generator itself: the processor time of its threads, the time in which they had
//! no core, and the lateness of their event loops.
//!
//! A heartbeat on each thread is due every ten milliseconds. If it is late, a response that arrived at
//! that moment would have been recorded late by as much: that part of its latency is the generator's.

use std::cell::Cell;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::clock::{self, Alarm};

const BEAT: Duration = Duration::from_millis(10);
/// A thread that takes more of a core than this has nothing to spare.
const BUSY_SHARE: f64 = 0.85;
/// A lag above this share of the median latency distorts the latencies.
const LAG_SHARE: f64 = 0.25;

/// Measurements of the generator in one run.
#[derive(Clone, Debug)]
pub struct Health {
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// The largest share of a core that one thread took: at 1 it could not have sent more.
    pub busiest: f64,
    /// The largest share of the time in which a thread was runnable and had no core, where the system
    /// reports it.
    pub starved: Option<f64>,
    /// Nanoseconds by which the event loops were late.
    pub lag: Histogram<u64>,
}

/// Judgement of a run's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The numbers are the server's.
    Free,
    /// The threads had nothing to spare: the server might do more.
    Busy,
    /// The loops were late: a part of the latencies is the generator's.
    Late,
}

impl Default for Health {
    fn default() -> Self {
        let lag = Histogram::new(3).expect("the digits are a constant that is right");
        Self { cpu: Duration::ZERO, busiest: 0.0, starved: None, lag }
    }
}

impl Health {
    /// Adds the measurements of another thread, or of another turn.
    pub fn merge(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.busiest = self.busiest.max(other.busiest);
        self.starved = self.starved.into_iter().chain(other.starved).reduce(f64::max);
        self.lag.add(&other.lag).expect("it resizes itself");
    }

    /// Percentile of the event loops' lateness, in milliseconds.
    pub fn lag_ms(&self, percent: f64) -> f64 {
        self.lag.value_at_percentile(percent) as f64 / 1e6
    }

    /// Judges latencies with this median, in nanoseconds.
    pub fn verdict(&self, median: u64) -> Verdict {
        let lag = self.lag.value_at_percentile(50.0) as f64;
        if self.busiest > BUSY_SHARE {
            Verdict::Busy
        } else if lag > median as f64 * LAG_SHARE {
            Verdict::Late
        } else {
            Verdict::Free
        }
    }
}

impl Verdict {
    /// Text that ends a sentence about the generator.
    pub fn words(self) -> &'static str {
        match self {
            Self::Free => "not the bottleneck",
            Self::Busy => {
                "it was BUSY, and the server might do more: raise --threads or lower the load"
            }
            Self::Late => "it was LATE, and a part of the latencies is its own: leave it a core",
        }
    }
}

/// Measures the thread that it was made on.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    cpu: Duration,
    queued: Option<Duration>,
    stop: Rc<Cell<bool>>,
    lag: tokio::task::JoinHandle<io::Result<Histogram<u64>>>,
}

impl Pulse {
    /// Starts the heartbeat; to be called inside a `LocalSet`.
    pub fn start() -> Self {
        let stop = Rc::new(Cell::new(false));
        Self {
            start: clock::now(),
            cpu: thread_cpu(),
            queued: thread_queued(),
            lag: tokio::task::spawn_local(beat(Rc::clone(&stop))),
            stop,
        }
    }

    /// Stops, and returns the measurements.
    ///
    /// # Errors
    /// The timer could not be made.
    pub async fn stop(self) -> io::Result<Health> {
        let wall = clock::now().saturating_duration_since(self.start).as_secs_f64().max(1e-9);
        let cpu = thread_cpu().saturating_sub(self.cpu);
        let queued = thread_queued().zip(self.queued);
        let starved =
            queued.map(|(after, before)| after.saturating_sub(before).as_secs_f64() / wall);
        self.stop.set(true);
        let lag = self.lag.await.map_err(io::Error::other)??;
        Ok(Health { cpu, busiest: cpu.as_secs_f64() / wall, starved, lag })
    }
}

async fn beat(stop: Rc<Cell<bool>>) -> io::Result<Histogram<u64>> {
    let alarm = Alarm::new()?;
    let mut lag = Histogram::new(3).map_err(io::Error::other)?;
    while !stop.get() {
        let due = clock::now() + BEAT;
        alarm.set(due)?;
        poll_fn(|context| alarm.poll(context)).await?;
        lag.record(clock::nanos(due, clock::now()).max(1)).map_err(io::Error::other)?;
    }
    Ok(lag)
}

/// Processor time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Time for which this thread was runnable and had no core, as Linux counts it.
fn thread_queued() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(busiest: f64, lag_ms: u64) -> Health {
        let mut health = Health { busiest, ..Health::default() };
        health.lag.record(lag_ms * 1_000_000).unwrap();
        health
    }

    #[test]
    fn a_generator_is_in_the_way_when_it_is_busy_or_late() {
        let median = 10_000_000;
        assert_eq!(health(0.4, 1).verdict(median), Verdict::Free);
        assert_eq!(health(0.95, 1).verdict(median), Verdict::Busy);
        assert_eq!(health(0.4, 4).verdict(median), Verdict::Late);
        assert_eq!(health(0.4, 4).verdict(median * 10), Verdict::Free);
    }

    #[test]
    fn the_worst_thread_speaks_for_all() {
        let mut all = health(0.2, 1);
        all.merge(&Health { cpu: Duration::from_secs(1), starved: Some(0.3), ..health(0.7, 3) });
        assert_eq!((all.busiest, all.starved, all.lag.len()), (0.7, Some(0.3), 2));
        assert_eq!(all.cpu, Duration::from_secs(1));
    }
}
