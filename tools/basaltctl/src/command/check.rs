//! check perf and check datascale: many clients put, and the throughput and latency are judged.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse, PutRequest,
};
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::client::requests::{delete, get, prefix_end, put};
use crate::client::settings::Settings;
use crate::command::{Context, metrics};
use crate::print::out;
use crate::print::progress::Progress;
use crate::{Failure, exit};
use gocompat::quote::quote;

const PERF: Duration = Duration::from_secs(60);
/// Timeout of the requests after the check.
const CLEANUP_TIME_MAX: Duration = Duration::from_secs(30);

/// Latencies and errors of the requests.
#[derive(Default)]
struct Results {
    seconds: RefCell<Vec<f64>>,
    errors: RefCell<BTreeMap<String, u64>>,
    sent: Cell<u64>,
    /// No further request is to be sent.
    is_stopped: Cell<bool>,
}

#[allow(clippy::disallowed_methods, reason = "it is time that is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Index of the `--load` in the table of loads.
fn load(context: &Context) -> Result<usize, Failure> {
    match context.values.text("load") {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        other => {
            let text = format!("unknown load option {other}");
            Err(Failure::new(exit::BAD_FEATURE, text))
        }
    }
}

async fn clients(settings: &Settings, count: usize) -> Result<Vec<Rc<Client>>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Rc::new(settings.client().await?));
    }
    Ok(clients)
}

async fn must_be_empty(client: &Client, prefix: &str, hint: &str) -> Result<(), Failure> {
    let mut request = get(prefix.to_owned());
    request.range_end = prefix_end(prefix.as_bytes());
    request.limit = 1;
    let found = client.get(&request, None).await?;
    if found.kvs.is_empty() {
        return Ok(());
    }
    let text = format!("prefix {} has keys. Delete with {hint} first", quote(prefix));
    Err(Failure::new(exit::INVALID_INPUT, text))
}

/// A put of a key that no other request uses: the prefix, a scrambled number, and zeros.
fn request(prefix: &str, number: u64, key_bytes: usize, value_bytes: usize) -> PutRequest {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    let mut key = vec![0; key_bytes];
    key[..8].copy_from_slice(&mixed.to_be_bytes());
    put([prefix.as_bytes(), &key].concat(), vec![0; value_bytes], 0)
}

/// Puts by all clients at once until `next` returns no request.
async fn put_all(
    clients: &[Rc<Client>],
    tally: &Rc<Results>,
    next: impl AsyncFn(&Results) -> Option<PutRequest> + 'static,
) {
    let next = Rc::new(next);
    let mut workers = Vec::new();
    for client in clients {
        let (client, tally, next) = (client.clone(), tally.clone(), next.clone());
        workers.push(tokio::task::spawn_local(async move {
            while let Some(request) = next(&tally).await {
                let began = now();
                match client.put(&request, None).await {
                    Ok(_) => tally.seconds.borrow_mut().push(began.elapsed().as_secs_f64()),
                    Err(refusal) => {
                        *tally.errors.borrow_mut().entry(refusal.text()).or_default() += 1;
                    }
                }
            }
        }));
    }
    for worker in workers {
        let _ = worker.await;
    }
}

/// # Errors
/// The cluster is too slow, or cannot be reached.
pub(crate) async fn perf(mut context: Context) -> Result<(), Failure> {
    const LOADS: [(u32, usize); 4] = [(150, 50), (1000, 200), (8000, 500), (15000, 1000)];
    let (rate, count) = LOADS[load(&context)?];
    let (settings, _) = context.settings().await?;
    let clients = clients(&settings, count).await?;
    let prefix = context.values.text("prefix").to_owned();
    let hint = format!("'etcdctl del --prefix {prefix}'");
    must_be_empty(&clients[0], &prefix, &hint).await?;
    let tally = Rc::new(Results::default());
    let began = now();
    let every = Duration::from_secs(1) / rate;
    let name = prefix.clone();
    let paced = async move |tally: &Results| {
        let number = tally.sent.get();
        tally.sent.set(number + 1);
        let due = began + every * u32::try_from(number).unwrap_or(u32::MAX);
        if due >= began + PERF {
            return None;
        }
        sleep_until(due).await;
        (!tally.is_stopped.get()).then(|| request(&name, number, 256, 1024))
    };
    let progress = Progress::new();
    let so_far = || format!("{} / {} s", began.elapsed().as_secs(), PERF.as_secs());
    let mut work = pin!(progress.during(put_all(&clients, &tally, paced), so_far));
    tokio::select! {
        () = &mut work => {}
        _ = tokio::signal::ctrl_c() => {
            // A put after the deletion of the keys would leave its key behind.
            tally.is_stopped.set(true);
            work.await;
        }
    }
    let took = began.elapsed().as_secs_f64();
    clean_up(&context, &clients[0], &prefix).await?;
    judge(&tally, took, f64::from(rate))
}

fn judge(tally: &Results, took: f64, rate: f64) -> Result<(), Failure> {
    let seconds = tally.seconds.borrow();
    let errors = tally.errors.borrow();
    #[allow(clippy::cast_precision_loss, reason = "a count far below 2^53")]
    let count = seconds.len() as f64;
    let throughput = count / took;
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    let mean = seconds.iter().sum::<f64>() / count.max(1.0);
    let variance = seconds.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / count.max(1.0);
    let deviation = variance.sqrt();
    let mut well = errors.is_empty();
    tell_errors(&errors);
    if throughput / rate <= 0.9 {
        out::line(&format!("FAIL: Throughput too low: {:.0} writes/s", throughput.floor() + 1.0));
        well = false;
    } else {
        out::line(&format!("PASS: Throughput is {:.0} writes/s", throughput.floor() + 1.0));
    }
    if slowest > 0.5 {
        out::line(&format!("Slowest request took too long: {slowest:.6}s"));
        well = false;
    } else {
        out::line(&format!("PASS: Slowest request took {slowest:.6}s"));
    }
    if deviation > 0.1 {
        out::line(&format!("Stddev too high: {deviation:.6}s"));
        well = false;
    } else {
        out::line(&format!("PASS: Stddev is {deviation:.6}s"));
    }
    out::line(if well { "PASS" } else { "FAIL" });
    if well { Ok(()) } else { Err(Failure::silent(exit::ERROR)) }
}

fn tell_errors(errors: &BTreeMap<String, u64>) {
    if !errors.is_empty() {
        out::line("FAIL: too many errors");
        for (error, count) in errors {
            out::line(&format!("FAIL: ERROR({error}) -> {count}"));
        }
    }
}

/// Deletes the keys, then compacts and defragments if the flags ask for it.
async fn clean_up(context: &Context, client: &Client, prefix: &str) -> Result<(), Failure> {
    let mut request = delete(prefix.to_owned());
    request.range_end = prefix_end(prefix.as_bytes());
    match client.delete(&request, Some(now() + CLEANUP_TIME_MAX)).await {
        Ok(answer) if context.values.is_on("auto-compact") => {
            compact(client, answer.header.unwrap_or_default().revision).await?;
        }
        Ok(_) => {}
        Err(it) => {
            let why = it.text();
            out::line(&format!("FAIL: Cleanup failed during key deletion: ERROR({why})"));
        }
    }
    if context.values.is_on("auto-defrag") {
        for endpoint in &client.settings.endpoints {
            defragment(&client.settings, endpoint).await?;
        }
    }
    Ok(())
}

async fn compact(client: &Client, revision: i64) -> Result<(), Failure> {
    out::line(&format!("Compacting with revision {revision}"));
    let request = CompactionRequest { revision, physical: true };
    let deadline = Some(now() + CLEANUP_TIME_MAX);
    let method = "/etcdserverpb.KV/Compact";
    client.call::<_, CompactionResponse>(method, &request, deadline).await?;
    out::line(&format!("Compacted with revision {revision}"));
    Ok(())
}

async fn defragment(settings: &Settings, endpoint: &str) -> Result<(), Failure> {
    out::line(&format!("Defragmenting {}", quote(endpoint)));
    let client = settings.only(endpoint).client().await?;
    let deadline = Some(now() + CLEANUP_TIME_MAX);
    let method = "/etcdserverpb.Maintenance/Defragment";
    client.call::<_, DefragmentResponse>(method, &DefragmentRequest {}, deadline).await?;
    out::line(&format!("Defragmented {}", quote(endpoint)));
    Ok(())
}

/// # Errors
/// The cluster refused, or its memory cannot be read.
pub(crate) async fn datascale(mut context: Context) -> Result<(), Failure> {
    const LOADS: [(u64, usize); 4] =
        [(10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)];
    let (keys, count) = LOADS[load(&context)?];
    let (settings, _) = context.settings().await?;
    let clients = clients(&settings, count).await?;
    let prefix = context.values.text("prefix").to_owned();
    let hint = format!("etcdctl del --prefix {prefix}");
    must_be_empty(&clients[0], &prefix, &hint).await?;
    let before = memory(&settings, "before").await?;
    out::line(&format!(
        "Start data scale check for work load [{keys} key-value pairs, 1024 bytes per key-value, \
         {count} concurrent clients]."
    ));
    let tally = Rc::new(Results::default());
    let name = prefix.clone();
    let all = async move |tally: &Results| {
        let number = tally.sent.get();
        tally.sent.set(number + 1);
        (number < keys).then(|| request(&name, number, 512, 512))
    };
    let so_far = || format!("{} / {keys}", tally.sent.get().min(keys));
    Progress::new().during(put_all(&clients, &tally, all), so_far).await;
    let after = memory(&settings, "after").await?;
    clean_up(&context, &clients[0], &prefix).await?;
    let errors = tally.errors.borrow();
    if !errors.is_empty() {
        tell_errors(&errors);
        return Err(Failure::silent(exit::ERROR));
    }
    let used = (after - before) / (1024.0 * 1024.0);
    out::line(&format!("PASS: Approximate system memory used : {used:.2} MB."));
    Ok(())
}

async fn memory(settings: &Settings, when: &str) -> Result<f64, Failure> {
    let endpoint = settings.endpoints.first().cloned().unwrap_or_default();
    metrics::resident_memory(settings, &endpoint).await.map_err(|why| {
        out::line(&why);
        out::line(&format!(
            "FAIL: Could not read process_resident_memory_bytes {when} the put operations."
        ));
        Failure::silent(exit::ERROR)
    })
}
