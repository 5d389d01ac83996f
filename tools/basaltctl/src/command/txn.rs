//! Transactions read line by line: comparisons, an empty line, the operations if they hold, an empty
//! line, the operations if not, an empty line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, stdin};
use std::os::fd::AsFd as _;

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};
use bytes::Bytes;

use crate::cli::action::Action;
use crate::cli::tree::REQUESTS;
use crate::cli::{find, help};
use crate::client::requests::op;
use crate::command::{Context, keys};
use crate::go::scan;
use crate::print::out;
use crate::{Failure, exit};
use gocompat::flags::{Values, Word};
use gocompat::number::parse_int;
use gocompat::quote::quote;

/// # Errors
/// A line is invalid, or the server refused.
pub(crate) async fn txn(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "txn command does not accept argument")?;
    let (client, printer) = context.connect().await?;
    let interactive = context.values.is_on("interactive");
    let prompt = |text: &str| {
        if interactive {
            out::line(text);
        }
    };
    // A buffer of its own: a put without a value reads the input after it, as etcdctl's does.
    let input = stdin().as_fd().try_clone_to_owned().map_err(|it| invalid(it.to_string()))?;
    let mut input = BufReader::new(File::from(input));
    let mut request = TxnRequest::default();
    prompt("compares:");
    while let Some(line) = line(&mut input)? {
        request.compare.push(comparison(&line)?);
    }
    prompt("success requests (get, put, del):");
    while let Some(line) = line(&mut input)? {
        request.success.push(operation(&line).await?);
    }
    prompt("failure requests (get, put, del):");
    while let Some(line) = line(&mut input)? {
        request.failure.push(operation(&line).await?);
    }
    printer.show(&client.txn(&request).await?)
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(exit::INVALID_INPUT, text)
}

/// The next line without the space around it; `None` if it is empty.
fn line(input: &mut BufReader<File>) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    let read = input.read_until(b'\n', &mut line);
    if read.is_err() || line.last() != Some(&b'\n') {
        return Err(invalid("EOF"));
    }
    let text = String::from_utf8_lossy(&line).trim().to_owned();
    Ok(Some(text).filter(|it| !it.is_empty()))
}

/// `target("key") operator "value"`.
fn comparison(line: &str) -> Result<Compare, Failure> {
    let malformed = |more: String| invalid(format!("malformed comparison: {line}{more}"));
    let (target, rest) = line.split_once('(').ok_or_else(|| malformed(String::new()))?;
    let (count, key, operator, value) = scan::comparison(rest.as_bytes());
    if count != 3 {
        let got = format!("; got {target}({}) {operator} {}", quote(&key), quote(&value));
        return Err(malformed(got));
    }
    let number = || {
        let number = parse_int(&String::from_utf8_lossy(&value), 10);
        number.map_err(|_| invalid(format!("invalid txn compare request: {line}")))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.clone().into())),
        "lease" => {
            let id = parse_int(&String::from_utf8_lossy(&value), 16);
            let id = id.map_err(|_| invalid(format!("invalid txn compare request: {line}")))?;
            (CompareTarget::Lease, TargetUnion::Lease(id))
        }
        _ => return Err(malformed(format!(" (unknown target {target})"))),
    };
    let result = match operator.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => {
            out::error("panic: Unknown result op");
            return Err(Failure::silent(exit::BAD_CONNECTION));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::from(key),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

/// Parses a line with etcdctl's own get, put and del.
async fn operation(line: &str) -> Result<RequestOp, Failure> {
    let words: Vec<Word> = scan::words(line).map_err(invalid)?;
    if words.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {line}")));
    }
    let unknown = || invalid(format!("invalid txn request: {line}"));
    let (path, rest) = find::find(&REQUESTS, &words);
    let Some(action) = path.command().action else { return Err(unknown()) };
    let values = Values::read(path.local(), path.above(), &rest).map_err(|_| {
        out::error(&help::usage(&path));
        unknown()
    })?;
    Ok(op(if action == Action::Get {
        Request::RequestRange(keys::range_request(&values)?)
    } else if action == Action::Put {
        Request::RequestPut(keys::put_request(&values)?)
    } else {
        Request::RequestDeleteRange(keys::delete_request(&values).await?)
    }))
}
