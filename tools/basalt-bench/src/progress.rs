//! A progress bar on a terminal, nothing in a pipe. Counting costs the load one addition per batch; drawing
//! happens on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const DRAW_EVERY: Duration = Duration::from_millis(100);
const TEMPLATE: &str = "{pos} / {len} [{bar:40}] {percent}% {per_sec} {elapsed} left {eta}";

/// A bar that lives until it is dropped.
#[derive(Debug)]
pub struct Progress {
    done: Arc<AtomicU64>,
    bar: ProgressBar,
    drawer: Option<JoinHandle<()>>,
}

impl Progress {
    /// A bar for `total` operations.
    pub fn new(total: u64) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is a constant");
        let bar = ProgressBar::new(total).with_style(style.progress_chars("=> "));
        let done = Arc::new(AtomicU64::new(0));
        let drawer = (!bar.is_hidden()).then(|| {
            let (bar, done) = (bar.clone(), Arc::clone(&done));
            thread::spawn(move || {
                while !bar.is_finished() {
                    bar.set_position(done.load(Ordering::Relaxed));
                    thread::park_timeout(DRAW_EVERY);
                }
            })
        });
        Self { done, bar, drawer }
    }

    /// The counter of finished operations.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if let Some(drawer) = self.drawer.take() {
            drawer.thread().unpark();
            drop(drawer.join());
        }
    }
}
