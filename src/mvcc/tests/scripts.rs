//! Golden scripts: `scripts/*.txt` contain commands, `---`, and their output, block after block.
//! `BASALT_REWRITE=1 cargo test mvcc::tests::scripts` writes the output again; read the diff.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//! del KEY [END] [prev]              get KEY [END] [rev=N] [limit=N] [sort=mod:descend] [keys] [count]
//! txn [if FIELD KEY[..END] = X & …] then OP ; OP else OP      (a nested one stands in braces)
//! compact N     step [BUDGET]     restart     hash N     history FROM [revisions=N]     events     leases
//! ```

use std::fmt::Write;
use std::iter::Peekable;
use std::path::Path;

use basalt_proto::encoded::Response;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, RequestOp, compare};

use super::*;
use crate::mvcc::{check_delete, check_put, check_range, check_txn};

/// The default of `--max-txn-ops`.
const OPERATIONS_MAX: usize = 128;

#[test]
fn scripts_answer_as_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mvcc/scripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let answered = replay(&script);
        if std::env::var_os("BASALT_REWRITE").is_some() {
            std::fs::write(&path, &answered).unwrap();
        } else {
            assert_eq!(answered, script, "{}", path.display());
        }
    }
}

fn replay(script: &str) -> String {
    let mut store = Store::new(1 << 20);
    let blocks = script.trim_end().split("\n\n").map(|block| {
        let commands = block.lines().take_while(|line| *line != "---");
        let mut told: String = commands.clone().map(|line| format!("{line}\n")).collect();
        told.push_str("---\n");
        let commands = commands.filter(|line| !line.starts_with('#'));
        told.extend(commands.map(|line| run(&mut store, line)));
        told
    });
    blocks.collect::<Vec<_>>().join("\n")
}

type Words<'a, 'b> = &'a mut Peekable<std::str::SplitWhitespace<'b>>;

fn run(store: &mut Store, line: &str) -> String {
    let mut words = line.split_whitespace().peekable();
    let words = &mut words;
    let command = words.next().unwrap();
    let number = |text: Option<&str>| text.map_or(0, |text| text.parse::<i64>().unwrap());
    let outcome = match command {
        "put" => {
            let request = put_request(words);
            let checked = check_put(&request);
            checked.and_then(|()| store.put(&request)).map(|response| show_put(&response))
        }
        "del" => {
            let request = delete_request(words);
            check_delete(&request).map(|()| show_delete(&store.delete_range(&request)))
        }
        "txn" => {
            let request = txn_request(words);
            let checked = check_txn(&request, OPERATIONS_MAX);
            checked.and_then(|()| store.txn(&request)).map(|response| show_txn(&response, ""))
        }
        "get" => {
            store.commit();
            let request = range_request(words);
            let checked = check_range(&request);
            checked.and_then(|()| store.range(&request)).map(|response| show_range(&response))
        }
        "compact" => store.compact(number(words.next())).map(|()| "ok\n".to_owned()),
        "step" => {
            let budget = number(words.next().or(Some("1000"))) as usize;
            let done = store.mvcc.compact_step(&mut store.tx, budget).unwrap();
            Ok(if done { "done\n" } else { "more\n" }.to_owned())
        }
        "restart" => {
            store.commit();
            let old = std::mem::replace(store, Store::new(0));
            *store = old.restart(1 << 20);
            Ok(format!("revision {} compacted {}\n", store.mvcc.revision(), store.mvcc.compacted()))
        }
        "hash" => {
            store.commit();
            store.hash(number(words.next())).map(|hash| {
                format!(
                    "{} compact {} revision {}\n",
                    hash.hash, hash.compact_revision, hash.revision
                )
            })
        }
        "history" => {
            store.commit();
            show_history(store, number(words.next()), words.next())
        }
        "events" => {
            store.commit();
            Ok(show_events(&std::mem::take(&mut store.events)))
        }
        "leases" => {
            store.commit();
            let lines = std::mem::take(&mut store.attachments).into_iter().map(|attachment| {
                format!("{} {} -> {}\n", text(&attachment.key), attachment.old, attachment.new)
            });
            Ok(lines.collect())
        }
        other => panic!("no such command: {other}"),
    };
    outcome.unwrap_or_else(|refusal| format!("{refusal}\n"))
}

fn literal(word: &str) -> Bytes {
    bytes(&word.replace("\\0", "\0").replace("\"\"", ""))
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn put_request(words: Words<'_, '_>) -> PutRequest {
    let mut request = PutRequest { key: literal(words.next().unwrap()), ..Default::default() };
    while let Some(word) = words.next_if(|word| !is_end(word)) {
        match word.split_once('=') {
            Some(("lease", lease)) => request.lease = lease.parse().unwrap(),
            _ if word == "prev" => request.prev_kv = true,
            _ if word == "ignore_value" => request.ignore_value = true,
            _ if word == "ignore_lease" => request.ignore_lease = true,
            _ => request.value = literal(word),
        }
    }
    request
}

fn delete_request(words: Words<'_, '_>) -> DeleteRangeRequest {
    let mut request =
        DeleteRangeRequest { key: literal(words.next().unwrap()), ..Default::default() };
    while let Some(word) = words.next_if(|word| !is_end(word)) {
        match word {
            "prev" => request.prev_kv = true,
            end => request.range_end = literal(end),
        }
    }
    request
}

fn range_request(words: Words<'_, '_>) -> RangeRequest {
    let mut request = RangeRequest { key: literal(words.next().unwrap()), ..Default::default() };
    while let Some(word) = words.next_if(|word| !is_end(word)) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<i64>().unwrap();
        match name {
            "rev" => request.revision = number(),
            "limit" => request.limit = number(),
            "sort" => {
                let (target, order) = value.split_once(':').unwrap();
                let place =
                    |names: &[&str], name: &str| names.iter().position(|other| *other == name);
                request.sort_target = place(&["key", "version", "create", "mod", "value"], target)
                    .map_or(9, |at| at as i32);
                request.sort_order =
                    place(&["none", "ascend", "descend"], order).map_or(9, |at| at as i32);
            }
            "keys" => request.keys_only = true,
            "count" => request.count_only = true,
            "minmod" => request.min_mod_revision = number(),
            "maxmod" => request.max_mod_revision = number(),
            "mincreate" => request.min_create_revision = number(),
            "maxcreate" => request.max_create_revision = number(),
            end => request.range_end = literal(end),
        }
    }
    request
}

fn is_end(word: &str) -> bool {
    matches!(word, ";" | "else" | "}" | "then" | "&")
}

fn txn_request(words: Words<'_, '_>) -> TxnRequest {
    let mut request = TxnRequest::default();
    while let Some(word) = words.next() {
        match word {
            "if" | "&" => request.compare.push(compare(words)),
            "then" => request.success = operations(words),
            "else" => request.failure = operations(words),
            "}" => break,
            other => panic!("not part of a transaction: {other}"),
        }
    }
    request
}

fn compare(words: Words<'_, '_>) -> Compare {
    let (field, keys) = (words.next().unwrap(), words.next().unwrap());
    let (result, wanted) = (words.next().unwrap(), words.next().unwrap());
    let (key, end) = keys.split_once("..").unwrap_or((keys, ""));
    let number = || wanted.parse::<i64>().unwrap();
    let (target, union) = match field {
        "version" => (0, compare::TargetUnion::Version(number())),
        "create" => (1, compare::TargetUnion::CreateRevision(number())),
        "mod" => (2, compare::TargetUnion::ModRevision(number())),
        "value" => (3, compare::TargetUnion::Value(literal(wanted))),
        _ => (4, compare::TargetUnion::Lease(number())),
    };
    let result = ["=", ">", "<", "!="].iter().position(|name| *name == result).unwrap() as i32;
    Compare {
        result,
        target,
        key: literal(key),
        range_end: literal(end),
        target_union: Some(union),
    }
}

fn operations(words: Words<'_, '_>) -> Vec<RequestOp> {
    let mut operations = Vec::new();
    while let Some(word) = words.next_if(|word| !matches!(*word, "else" | "}")) {
        let request = match word {
            ";" => continue,
            "put" => Some(Request::RequestPut(put_request(words))),
            "del" => Some(Request::RequestDeleteRange(delete_request(words))),
            "get" => Some(Request::RequestRange(range_request(words))),
            "{" => Some(Request::RequestTxn(txn_request(words))),
            "nothing" => None,
            other => panic!("no such operation: {other}"),
        };
        operations.push(RequestOp { request });
    }
    operations
}

fn show_kv(kv: &Bytes) -> String {
    let KeyValue { key, create_revision, mod_revision, version, value, lease } = decode(kv);
    let lease = if lease == 0 { String::new() } else { format!(" lease {lease}") };
    format!(
        "{}={:?} create {create_revision} mod {mod_revision} version {version}{lease}\n",
        text(&key),
        text(&value)
    )
}

fn revision(header: Option<basalt_proto::etcdserverpb::ResponseHeader>) -> i64 {
    header.unwrap().revision
}

fn show_put(response: &PutResponse) -> String {
    let prev = response.prev_kv.iter().map(|kv| format!("  was {}", show_kv(kv)));
    format!("put at {}\n{}", revision(response.header), prev.collect::<String>())
}

fn show_delete(response: &DeleteRangeResponse) -> String {
    let prev = response.prev_kvs.iter().map(|kv| format!("  was {}", show_kv(kv)));
    format!(
        "deleted {} at {}\n{}",
        response.deleted,
        revision(response.header),
        prev.collect::<String>()
    )
}

fn show_range(response: &RangeResponse) -> String {
    let more = if response.more { ", more" } else { "" };
    let kvs = response.kvs.iter().map(|kv| format!("  {}", show_kv(&kv)));
    format!("count {}{more}\n{}", response.count, kvs.collect::<String>())
}

fn show_txn(response: &TxnResponse, indent: &str) -> String {
    let mut out = format!("{indent}{} at {}\n", response.succeeded, revision(response.header));
    for operation in &response.responses {
        let shown = match operation.response.as_ref().unwrap() {
            Response::ResponseRange(range) => {
                format!("range at {}, {}", revision(range.header), show_range(range))
            }
            Response::ResponsePut(put) => show_put(put),
            Response::ResponseDeleteRange(delete) => show_delete(delete),
            Response::ResponseTxn(nested) => show_txn(nested, ""),
        };
        for line in shown.lines() {
            writeln!(out, "{indent}  {line}").unwrap();
        }
    }
    out
}

fn show_events(events: &[Event]) -> String {
    let mut out = String::new();
    for event in events {
        let decoded = basalt_proto::mvccpb::Event::decode(event.encoded.clone()).unwrap();
        assert_eq!(decoded.r#type == 1, event.delete);
        let kv: Bytes = decoded.kv.unwrap().encode_to_vec().into();
        let kind = if event.delete { "delete" } else { "put" };
        write!(out, "{}.{} {kind} {}", event.revision.main, event.revision.sub, show_kv(&kv))
            .unwrap();
        if let Some(prev) = &event.prev {
            write!(out, "  was {}", show_kv(prev)).unwrap();
        }
    }
    out
}

fn show_history(store: &Store, from: i64, revisions: Option<&str>) -> Result<String, Refusal> {
    let revisions =
        revisions.map_or(1000, |word| word.strip_prefix("revisions=").unwrap().parse().unwrap());
    let history = answer(store.read.history(from, revisions, 1 << 20))?;
    Ok(format!("{}next {}\n", show_events(&history.events), history.next))
}
