//! Threads that hash passwords with bcrypt: few, off the executors, and behind everybody else who wants the processor.
//! [`crate::login`] decides which attempts they compute.
//!
//! ```text
//!  executors ─verify, hash─► Attempts, Throttle (a lock that is held for microseconds) ─► threads ─answer─► executors
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use bcrypt::Version;

use super::clock::{self, Instant};
use super::{placement, system, thread};
use crate::login::{Attempts, Begun, Digest, Throttle};
use crate::metrics;
use crate::types::Fault;
use crate::types::limits::{BCRYPT_CORES_PER_THREAD, BCRYPT_COST_CHECKED_MAX};

/// How far the threads step back.
const NICE: i32 = 10;
/// The most bytes of a password that bcrypt looks at.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// The reason why a password was neither checked nor hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordError {
    /// Too many wait.
    Busy,
    /// It is longer than [`PASSWORD_BYTES_MAX`].
    TooLong,
}

/// An attempt to log in.
pub struct Attempt<'a> {
    /// The name that was given.
    pub user: &'a str,
    /// The address that it came from, without a port.
    pub address: &'a str,
    /// The bcrypt hash of the user's password. Without one the answer is no, after as much time.
    pub hash: Option<&'a str>,
    /// The password that was given.
    pub password: &'a str,
}

/// The threads of a member. Cheap to clone; they end with the last one.
#[derive(Clone)]
pub struct Passwords(Arc<Owner>);

struct Owner(Arc<Shared>);

struct Shared {
    cost: u32,
    /// Makes digests: of this process alone.
    key: hmac::Key,
    /// The hash of nothing in particular, which users are checked against that are not there.
    dummy: Mutex<Option<Arc<str>>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// How long the last check took.
    took_us: AtomicU64,
    hashes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    attempts: Attempts<Job, flume::Sender<Answer>>,
    throttle: Throttle,
    closed: bool,
}

enum Job {
    /// Without a hash the answer is no.
    Verify {
        hash: Option<String>,
        password: String,
    },
    Hash {
        password: String,
    },
}

#[derive(Clone)]
enum Answer {
    Verified(bool),
    HashKvReply(String),
}

impl Passwords {
    /// Starts the threads. Hashes are made at this cost.
    ///
    /// # Errors
    /// The kernel has no thread left.
    pub fn start(cost: u32) -> Result<Self, Fault> {
        let random: Vec<u8> = (0..4).flat_map(|_| system::random_u64().to_ne_bytes()).collect();
        let shared = Arc::new(Shared {
            cost,
            key: hmac::Key::new(hmac::HMAC_SHA256, &random),
            dummy: Mutex::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            took_us: AtomicU64::new(0),
            hashes: AtomicU64::new(0),
        });
        let threads = (placement::usable_cores() / BCRYPT_CORES_PER_THREAD).max(1);
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            thread::start_nice("bcrypt", NICE, move || shared.work())?;
        }
        Ok(Self(Arc::new(Owner(shared))))
    }

    /// The bcrypt hash of a password, as etcd stores it.
    ///
    /// # Errors
    /// Too many wait, or the password is too long.
    pub async fn hash(&self, user: &str, password: String) -> Result<String, PasswordError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        // Each gets a salt of its own, so no two are equal. The lane is no user's name.
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.0.0.hashes.fetch_add(1, Relaxed).to_be_bytes());
        let lane: Arc<str> = format!("\0{user}").into();
        let (done, answer) = flume::bounded(1);
        let begun = {
            let mut queue = self.0.0.lock();
            queue.attempts.begin(&lane, digest, Job::Hash { password }, done, clock::now_ms())
        };
        if begun == Begun::Full {
            return Err(PasswordError::Busy);
        }
        self.0.0.changed.notify_one();
        match answer.recv_async().await {
            Ok(Answer::HashKvReply(hash)) => Ok(hash),
            Ok(Answer::Verified(_)) | Err(_) => Err(PasswordError::Busy),
        }
    }

    /// Tells if a password is right. After too many wrong ones lately none is, and it takes as long.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn verify(&self, attempt: &Attempt<'_>) -> Result<bool, PasswordError> {
        let Attempt { user, address, hash, password } = attempt;
        let shared = &*self.0.0;
        let digest = shared.digest(attempt);
        let lane: Arc<str> = (*user).into();
        let (done, answer) = flume::bounded(1);
        let begun = {
            let mut queue = shared.lock();
            let now_ms = clock::now_ms();
            let is_remembered = queue.attempts.is_remembered(&digest, now_ms);
            match is_remembered || queue.throttle.admits(user, address, now_ms) {
                true => {
                    let (hash, password) = (hash.map(str::to_owned), (*password).to_owned());
                    let job = Job::Verify { hash, password };
                    Some(queue.attempts.begin(&lane, digest, job, done, now_ms))
                }
                false => None,
            }
        };
        let is_right = match begun {
            Some(Begun::Remembered) => return Ok(true),
            Some(Begun::Full) => return Err(PasswordError::Busy),
            Some(Begun::Waits) => {
                shared.changed.notify_one();
                matches!(answer.recv_async().await, Ok(Answer::Verified(true)))
            }
            None => {
                metrics::LOGINS_THROTTLED.add(1);
                clock::sleep(Duration::from_micros(shared.took_us.load(Relaxed))).await;
                return Ok(false);
            }
        };
        if !is_right {
            metrics::LOGINS_FAILED.add(1);
            shared.lock().throttle.fail(user, address, clock::now_ms());
        }
        Ok(is_right)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest(&self, attempt: &Attempt<'_>) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [attempt.user, attempt.hash.unwrap_or_default(), attempt.password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// The work of a thread.
    fn work(&self) {
        let mut queue = self.lock();
        while !queue.closed {
            let Some((user, job)) = queue.attempts.next(flume::Sender::is_disconnected) else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let answer = self.compute(job);
            let is_right = matches!(answer, Answer::Verified(true));
            queue = self.lock();
            let waiters = queue.attempts.finish(&user, is_right, clock::now_ms());
            drop(queue);
            for waiter in waiters {
                let _ = waiter.send(answer.clone());
            }
            queue = self.lock();
        }
    }

    fn compute(&self, job: Job) -> Answer {
        let began = Instant::now();
        let answer = match job {
            Job::Hash { password } => Answer::HashKvReply(hash(&password, self.cost)),
            Job::Verify { hash, password } => {
                let known = hash.filter(|hash| self.is_checkable(hash));
                // Whoever is not there takes as much time, so that the time tells nothing.
                let checked = known.as_deref().map_or_else(|| self.dummy(), Arc::from);
                let equals = bcrypt::verify(&password, &checked).unwrap_or(false);
                Answer::Verified(equals && known.is_some())
            }
        };
        self.took_us.store(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        metrics::PASSWORDS_HASHED.add(1);
        answer
    }

    /// Each step of the cost doubles the time: hashes that would take hours are nobody's.
    fn is_checkable(&self, hash: &str) -> bool {
        let cost = hash.split('$').nth(2).and_then(|cost| cost.parse::<u32>().ok());
        cost.is_some_and(|cost| cost <= BCRYPT_COST_CHECKED_MAX.max(self.cost))
    }

    fn dummy(&self) -> Arc<str> {
        let mut dummy = self.dummy.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(dummy.get_or_insert_with(|| hash("", self.cost).into()))
    }
}

/// The hash of a password, in the format of Go's library.
fn hash(password: &str, cost: u32) -> String {
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&system::random_u64().to_ne_bytes());
    salt[8..].copy_from_slice(&system::random_u64().to_ne_bytes());
    let parts = bcrypt::hash_with_salt(password, cost, salt).expect("the cost is from 4 to 31");
    parts.format_for_version(Version::TwoA)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    const COST: u32 = 4;

    fn attempt<'a>(user: &'a str, hash: Option<&'a str>, password: &'a str) -> Attempt<'a> {
        Attempt { user, address: "10.0.0.1", hash, password }
    }

    #[test]
    fn passwords_are_checked_as_go_checks_them() {
        let passwords = Passwords::start(COST).expect("it starts");
        let long = "x".repeat(PASSWORD_BYTES_MAX);
        for password in ["", "secret", "a\0b", "pässwörd", &long] {
            let hash = block_on(passwords.hash("a", password.to_owned())).expect("a hash");
            assert!(hash.starts_with("$2a$04$") && hash.len() == 60, "{hash}");
            let verify = |given: &str| {
                block_on(passwords.verify(&attempt("a", Some(&hash), given))).expect("an answer")
            };
            assert!(verify(password), "{password:?}");
            assert_eq!(verify(&format!("{password}x")), password == long, "{password:?}");
        }
        let too_long = block_on(passwords.hash("a", "x".repeat(PASSWORD_BYTES_MAX + 1)));
        assert_eq!(too_long, Err(PasswordError::TooLong));
        // From the tests of golang.org/x/crypto/bcrypt.
        let of_go = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        let verified = block_on(passwords.verify(&attempt("b", Some(of_go), "allmine")));
        assert_eq!(verified, Ok(true));
    }

    #[test]
    fn whoever_is_not_there_has_no_password() {
        let passwords = Passwords::start(COST).expect("it starts");
        for hash in [None, Some("nonsense"), Some(""), Some("$2a$31$costs.hours")] {
            for password in ["", "secret"] {
                let verified = block_on(passwords.verify(&attempt("ghost", hash, password)));
                assert_eq!(verified, Ok(false), "{hash:?}");
            }
        }
        assert!(passwords.0.0.took_us.load(Relaxed) > 0);
    }

    #[test]
    fn many_logins_cost_one_hash_and_guesses_are_throttled() {
        let passwords = Passwords::start(COST).expect("it starts");
        let hash = block_on(passwords.hash("a", "secret".to_owned())).expect("a hash");
        let before = metrics::PASSWORDS_HASHED.get();
        for _ in 0..1000 {
            let verified = block_on(passwords.verify(&attempt("a", Some(&hash), "secret")));
            assert_eq!(verified, Ok(true));
        }
        // Other tests hash, too.
        assert!(metrics::PASSWORDS_HASHED.get() - before < 500);
        for guess in 0..20 {
            let guess = guess.to_string();
            assert_eq!(block_on(passwords.verify(&attempt("a", Some(&hash), &guess))), Ok(false));
        }
        let throttle = &passwords.0.0.lock().throttle;
        assert!(!throttle.admits("a", "10.0.0.1", clock::now_ms()));
    }

    #[test]
    fn the_right_password_is_remembered_while_others_guess() {
        let passwords = Passwords::start(COST).expect("it starts");
        let hash = block_on(passwords.hash("a", "secret".to_owned())).expect("a hash");
        let login = || block_on(passwords.verify(&attempt("a", Some(&hash), "secret")));
        assert_eq!(login(), Ok(true));
        for guess in 0..20 {
            let guess = guess.to_string();
            assert_eq!(block_on(passwords.verify(&attempt("a", Some(&hash), &guess))), Ok(false));
        }
        assert_eq!(login(), Ok(true));
    }
}
