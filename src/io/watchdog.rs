//! Notifications to systemd (`sd_notify(3)`): this process is ready, it stops, and, if the unit has `WatchdogSec=`, it
//! is alive, which means that every executor runs its tasks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

use super::reactor::PeriodicWake;
use super::thread;

/// Times in which every executor must have answered once, of the time after which systemd ends the process.
const PARTS: u32 = 4;

static PULSES: Mutex<Vec<Arc<PeriodicWake>>> = Mutex::new(Vec::new());

/// Watches these executors, too.
pub(super) fn add(wakes: impl Iterator<Item = Arc<PeriodicWake>>) {
    PULSES.lock().unwrap_or_else(PoisonError::into_inner).extend(wakes);
}

/// Tells systemd that the process serves, if it asked to be told, and from then on that it lives.
pub fn notify_ready() {
    tracing::info!("notifying init daemon");
    match sd_notify::notify(&[NotifyState::Ready]) {
        Ok(()) => tracing::info!("successfully notified init daemon"),
        Err(error) => tracing::error!(%error, "failed to notify systemd for readiness"),
    }
    if let Some(wait) = sd_notify::watchdog_enabled().filter(|wait| !wait.is_zero()) {
        let watched = thread::start("watchdog", move || watch(wait / PARTS, &tell_alive));
        if let Err(fault) = watched {
            tracing::error!(error = %fault, "systemd is not told that this member lives");
        }
    }
}

/// Tells systemd that the process stops.
pub fn notify_stopping() {
    // If nobody listens, nobody wants to know.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

fn tell_alive() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// Asks all executors again and again, and tells when all of them have answered. Ends when all have ended.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
fn watch(part: Duration, tell: &dyn Fn()) {
    loop {
        let wakes: Vec<(Arc<PeriodicWake>, u64)> = {
            let mut wakes = PULSES.lock().unwrap_or_else(PoisonError::into_inner);
            wakes.retain(|wake| !wake.has_ended());
            wakes.iter().map(|wake| (Arc::clone(wake), wake.beats())).collect()
        };
        if wakes.is_empty() {
            return;
        }
        wakes.iter().for_each(|(wake, _)| wake.wake());
        std::thread::sleep(part);
        if all_answered(&wakes) {
            tell();
        }
    }
}

fn all_answered(asked: &[(Arc<PeriodicWake>, u64)]) -> bool {
    asked.iter().all(|(wake, before)| wake.has_ended() || wake.beats() > *before)
}
