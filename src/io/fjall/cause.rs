//! Why the store cannot go on. When one of fjall's threads meets an error, all it answers from then on is that it is
//! poisoned; the error itself it only logs. What it logs is kept here, and passed on to our log.

use std::sync::{Mutex, Once, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The newest error that was logged.
static NEWEST: Mutex<Option<String>> = Mutex::new(None);

struct Errors;

impl Log for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = ["fjall", "lsm_tree"].iter().any(|it| metadata.target().starts_with(it));
        is_ours && metadata.level() == Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let error = record.args().to_string();
            tracing::error!(error, "the store met an error");
            *NEWEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    fn flush(&self) {}
}

/// From now on errors are kept.
pub(super) fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        // Whoever uses this as a library may have a logger of its own, which says it all.
        if log::set_logger(&Errors).is_ok() {
            log::set_max_level(LevelFilter::Error);
        }
    });
}

/// What an error of the store's means: of one that only says that there was another, that one.
pub(super) fn of(error: &fjall::Error) -> String {
    let newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match (error, newest) {
        (fjall::Error::Poisoned, Some(cause)) => cause,
        _ => error.to_string(),
    }
}
