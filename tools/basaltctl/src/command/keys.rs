//! get, put, del, compaction. Transactions use their requests too.

use std::io::Read as _;
use std::time::Duration;

use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest,
    RangeResponse, RangeStreamResponse,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::client::error::Refusal;
use crate::client::requests::prefix_end;
use crate::command::Context;
use crate::print::{Format, out};
use crate::{Failure, exit};
use gocompat::flags::Values;
use gocompat::number::parse_int;
use gocompat::quote::quote;

/// Pause before a range is deleted.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);
const NO_END: Bytes = Bytes::from_static(b"\0");

/// # Errors
/// The arguments are invalid, or the server refused.
pub(crate) async fn get(mut context: Context) -> Result<(), Failure> {
    let request = range_request(&context.values)?;
    let (client, mut printer) = context.connect().await?;
    let deadline = client.deadline();
    let answer = match context.values.is_on("stream") {
        true => streamed(&client, request, deadline).await?,
        false => client.get(&request, deadline).await?,
    };
    if context.values.is_on("count-only") && printer.format != Format::Fields {
        return Err(Failure::bad_args("--count-only is only for `--write-out=fields`"));
    }
    if context.values.is_on("print-value-only") {
        if printer.format != Format::Simple {
            let text = "print-value-only is only for `--write-out=simple`";
            return Err(Failure::bad_args(text));
        }
        printer.value_only = true;
    }
    printer.show(&answer)
}

async fn streamed(
    client: &Client,
    request: RangeRequest,
    deadline: Option<Instant>,
) -> Result<RangeResponse, Refusal> {
    let method = "/etcdserverpb.KV/RangeStream";
    let mut parts = client.answers::<_, RangeStreamResponse>(method, request, deadline).await?;
    let mut whole = RangeResponse::default();
    while let Some(part) = parts.message().await.map_err(Refusal::of)? {
        let Some(part) = part.range_response else { continue };
        whole.header = part.header.or(whole.header);
        whole.kvs.extend(part.kvs);
        whole.more |= part.more;
        whole.count = if part.count == 0 { whole.count } else { part.count };
    }
    Ok(whole)
}

/// # Errors
/// Arguments and flags that exclude each other.
pub(crate) fn range_request(values: &Values) -> Result<RangeRequest, Failure> {
    let (prefix, from_key) = (values.is_on("prefix"), values.is_on("from-key"));
    let Some(key) = values.args.first() else {
        let text = "get command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_args(text));
    };
    both(prefix && from_key, "prefix", "from-key")?;
    both(values.is_on("keys-only") && values.is_on("count-only"), "keys-only", "count-only")?;
    let serializable = is_serializable(values.text("consistency"), values.text("consistency"))?;
    let mut request = RangeRequest {
        key: Bytes::from(key.clone()),
        limit: values.int("limit"),
        revision: values.int("rev").max(0),
        serializable,
        keys_only: values.is_on("keys-only"),
        count_only: values.is_on("count-only"),
        ..RangeRequest::default()
    };
    if let Some(end) = values.args.get(1) {
        only_one(prefix || from_key)?;
        request.range_end = Bytes::from(end.clone());
    }
    sort(values, &mut request)?;
    span(prefix, from_key, &mut request.key, &mut request.range_end);
    revisions(values, &mut request)?;
    Ok(request)
}

fn both(are: bool, one: &str, other: &str) -> Result<(), Failure> {
    let text = format!("`--{one}` and `--{other}` cannot be set at the same time, choose one");
    if are { Err(Failure::bad_args(text)) } else { Ok(()) }
}

fn only_one(flagged: bool) -> Result<(), Failure> {
    let text =
        "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
    if flagged { Err(Failure::bad_args(text)) } else { Ok(()) }
}

/// The end of the range that the flags ask for; without a first key it begins at the very first.
fn span(prefix: bool, from_key: bool, key: &mut Bytes, end: &mut Bytes) {
    if prefix && !key.is_empty() {
        *end = prefix_end(key);
    } else if prefix || from_key {
        if key.is_empty() {
            *key = NO_END;
        }
        *end = NO_END;
    }
}

/// True if one member may answer without a quorum; `told` is the value that the error shows.
///
/// # Errors
/// Neither `l` nor `s`.
pub(crate) fn is_serializable(given: &str, told: &str) -> Result<bool, Failure> {
    match given {
        "s" => Ok(true),
        "l" => Ok(false),
        _ => {
            let text = format!("unknown consistency flag {}", quote(told));
            Err(Failure::new(exit::BAD_FEATURE, text))
        }
    }
}

fn sort(values: &Values, request: &mut RangeRequest) -> Result<(), Failure> {
    let bad = |what: &str, given: &str| {
        Failure::new(exit::BAD_FEATURE, format!("bad sort {what} {given}"))
    };
    let given = values.text("order");
    let order = match given.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(bad("order", given)),
    };
    let given = values.text("sort-by");
    let target = match given.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(bad("target", given)),
    };
    request.set_sort_target(target);
    // Keys come in this order anyway; with the order in the request, the server would sort them all.
    request.set_sort_order(match (target, order) {
        (SortTarget::Key, SortOrder::Ascend) => SortOrder::None,
        _ => order,
    });
    Ok(())
}

fn revisions(values: &Values, request: &mut RangeRequest) -> Result<(), Failure> {
    let bounds = |least: &str, most: &str, name: &str| {
        let (min, max) = (values.int(least), values.int(most));
        if max > 0 && min > max {
            let text = format!("getMin{name}(={min}) > getMax{name}(={max})");
            return Err(Failure::new(exit::BAD_FEATURE, text));
        }
        Ok((min.max(0), max.max(0)))
    };
    (request.min_create_revision, request.max_create_revision) =
        bounds("min-create-rev", "max-create-rev", "CreateRev")?;
    (request.min_mod_revision, request.max_mod_revision) =
        bounds("min-mod-rev", "max-mod-rev", "ModRev")?;
    Ok(())
}

/// # Errors
/// The arguments are invalid, or the server refused.
pub(crate) async fn put(mut context: Context) -> Result<(), Failure> {
    let request = put_request(&context.values)?;
    let (client, printer) = context.connect().await?;
    let answer = client.put(&request, client.deadline()).await?;
    printer.show(&answer)
}

/// # Errors
/// Arguments and flags that exclude each other.
pub(crate) fn put_request(values: &Values) -> Result<PutRequest, Failure> {
    let missing =
        || Failure::bad_args("put command needs 1 argument and input from stdin or 2 arguments");
    let key = values.args.first().ok_or_else(missing)?;
    let ignore_value = values.is_on("ignore-value");
    if ignore_value && values.args.len() > 1 {
        let text = "put command needs only 1 argument when 'ignore-value' is set";
        return Err(Failure::bad_args(text));
    }
    let value = match values.args.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None => {
            let mut value = Vec::new();
            let read = std::io::stdin().read_to_end(&mut value);
            if value.is_empty() || read.is_err() {
                return Err(missing());
            }
            value
        }
    };
    let lease = parse_int(values.text("lease"), 16)
        .map_err(|it| Failure::bad_args(format!("bad lease ID ({it}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: Bytes::from(key.clone()),
        value: Bytes::from(value),
        lease,
        prev_kv: values.is_on("prev-kv"),
        ignore_value,
        ignore_lease: values.is_on("ignore-lease"),
    })
}

/// # Errors
/// The arguments are invalid, or the server refused.
pub(crate) async fn del(mut context: Context) -> Result<(), Failure> {
    let request = delete_request(&context.values).await?;
    let (client, printer) = context.connect().await?;
    let answer = client.delete(&request, client.deadline()).await?;
    printer.show(&answer)
}

/// # Errors
/// Arguments and flags that exclude each other.
pub(crate) async fn delete_request(values: &Values) -> Result<DeleteRangeRequest, Failure> {
    let (prefix, from_key) = (values.is_on("prefix"), values.is_on("from-key"));
    let args = &values.args;
    if args.is_empty() || args.len() > 2 {
        let text = "del command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_args(text));
    }
    both(prefix && from_key, "prefix", "from-key")?;
    let mut request = DeleteRangeRequest {
        key: Bytes::from(args[0].clone()),
        prev_kv: values.is_on("prev-kv"),
        ..DeleteRangeRequest::default()
    };
    if let Some(end) = args.get(1) {
        only_one(prefix || from_key)?;
        request.range_end = Bytes::from(end.clone());
        if !values.is_on("range") {
            out::error(&format!(
                "Warning: Keys between {} and {} will be deleted. Please interrupt the command \
                 within next 2 seconds to cancel. You can provide `--range` flag to avoid the \
                 delay.",
                quote(&args[0]),
                quote(end)
            ));
            sleep(SECOND_THOUGHTS).await;
        }
    }
    span(prefix, from_key, &mut request.key, &mut request.range_end);
    Ok(request)
}

/// # Errors
/// The revision is no number, or the server refused.
pub(crate) async fn compaction(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "compaction command needs 1 argument")?;
    let revision = parse_int(&context.arg(0), 10).map_err(Failure::error)?;
    let request = CompactionRequest { revision, physical: context.values.is_on("physical") };
    let (client, _) = context.connect().await?;
    let method = "/etcdserverpb.KV/Compact";
    client.call::<_, CompactionResponse>(method, &request, client.deadline()).await?;
    out::line(&format!("compacted revision {revision}"));
    Ok(())
}
