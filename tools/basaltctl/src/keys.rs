//! put, get, del, compaction.

use basalt_proto::etcdserverpb::kv_client::KvClient;
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
};
use bytes::Bytes;
use serde_json::{Map, json};

use crate::args::{Args, Spec};
use crate::client::Client;
use crate::{Failure, exit, output};

fn kv(client: &Client) -> KvClient<tonic::transport::Channel> {
    KvClient::new(client.channel.clone()).max_decoding_message_size(i32::MAX as usize)
}

/// The first key after all that begin with `prefix`.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte < 0xff);
    match kept {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(&[0]),
    }
}

/// Key and end from the arguments and `--prefix` or `--from-key`.
pub(crate) fn range(args: &Args, command: &str) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (args.is_on("prefix"), args.is_on("from-key"));
    if prefix && from_key {
        let text = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
        return Err(Failure::bad_args(text));
    }
    let (key, end) = match args.positional.as_slice() {
        [key] => (key.clone(), None),
        [_, _] if prefix || from_key => {
            let text = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
            return Err(Failure::bad_args(text));
        }
        [key, end] => (key.clone(), Some(end.clone())),
        _ => {
            let text = format!(
                "{command} command needs one argument as key and an optional argument as range_end"
            );
            return Err(Failure::bad_args(text));
        }
    };
    let key = if key.is_empty() && (prefix || from_key) { "\0".to_owned() } else { key };
    let end = match end {
        Some(end) => end.into(),
        None if from_key => Bytes::from_static(&[0]),
        None if prefix && key == "\0" => Bytes::from_static(&[0]),
        None if prefix => prefix_end(key.as_bytes()),
        None => Bytes::new(),
    };
    Ok((key.into(), end))
}

/// `put <key> <value>`; the value from standard input if it is not given.
pub(crate) async fn put(rest: Vec<String>) -> Result<(), Failure> {
    const SPEC: Spec =
        Spec { values: &["lease"], switches: &["prev-kv", "ignore-value", "ignore-lease"] };
    let args = Args::read(rest, SPEC)?;
    let ignore_value = args.is_on("ignore-value");
    let (key, value) = match args.positional.as_slice() {
        [key] if ignore_value => (key.clone(), Vec::new()),
        [key] => {
            let mut value = Vec::new();
            let read = std::io::Read::read_to_end(&mut std::io::stdin(), &mut value);
            read.map_err(|error| Failure::bad_args(error.to_string()))?;
            (key.clone(), value)
        }
        [key, value] if !ignore_value => (key.clone(), value.clone().into_bytes()),
        _ => {
            return Err(Failure::bad_args(
                "put command needs 1 argument and input from stdin or 2 arguments",
            ));
        }
    };
    let lease = args.get("lease", "0");
    let lease = i64::from_str_radix(&lease, 16)
        .map_err(|_| Failure::bad_args(format!("bad lease ID ({lease}), expecting ID in Hex")))?;
    let client = Client::connect(&args).await?;
    let request = PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        prev_kv: args.is_on("prev-kv"),
        ignore_value,
        ignore_lease: args.is_on("ignore-lease"),
    };
    let response = client.ask(kv(&client).put(request)).await?;
    if client.json {
        let mut fields = Map::new();
        fields.insert("header".into(), output::header(response.header.as_ref()));
        if let Some(prev) = &response.prev_kv {
            fields.insert("prev_kv".into(), output::kv_json(prev));
        }
        output::line(&serde_json::Value::Object(fields).to_string());
        return Ok(());
    }
    output::line("OK");
    if let Some(prev) = &response.prev_kv {
        output::key_value(prev, client.hex);
    }
    Ok(())
}

/// `get <key> [range_end]`.
pub(crate) async fn get(rest: Vec<String>) -> Result<(), Failure> {
    const SPEC: Spec = Spec {
        values: &[
            "consistency",
            "order",
            "sort-by",
            "limit",
            "rev",
            "min-create-rev",
            "max-create-rev",
            "min-mod-rev",
            "max-mod-rev",
        ],
        switches: &["prefix", "from-key", "keys-only", "count-only", "print-value-only"],
    };
    let args = Args::read(rest, SPEC)?;
    let (key, range_end) = range(&args, "get")?;
    let serializable = match args.get("consistency", "l").as_str() {
        "l" => false,
        "s" => true,
        other => return Err(Failure::new(4, format!("unknown consistency flag {other:?}"))),
    };
    let sort_order = match args.get("order", "").to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        other => return Err(Failure::new(4, format!("bad sort order {other}"))),
    };
    let sort_target = match args.get("sort-by", "").to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        other => return Err(Failure::new(4, format!("bad sort target {other}"))),
    };
    let client = Client::connect(&args).await?;
    let request = RangeRequest {
        key,
        range_end,
        limit: args.number("limit")?,
        revision: args.number("rev")?,
        sort_order: sort_order as i32,
        sort_target: sort_target as i32,
        serializable,
        keys_only: args.is_on("keys-only"),
        count_only: args.is_on("count-only"),
        min_mod_revision: args.number("min-mod-rev")?,
        max_mod_revision: args.number("max-mod-rev")?,
        min_create_revision: args.number("min-create-rev")?,
        max_create_revision: args.number("max-create-rev")?,
    };
    let response = client.ask(kv(&client).range(request)).await?;
    print_range(&args, &client, &response);
    Ok(())
}

fn print_range(args: &Args, client: &Client, response: &RangeResponse) {
    if client.json {
        let mut fields = Map::new();
        fields.insert("header".into(), output::header(response.header.as_ref()));
        if !response.kvs.is_empty() {
            fields.insert("kvs".into(), response.kvs.iter().map(output::kv_json).collect());
        }
        if response.more {
            fields.insert("more".into(), json!(true));
        }
        if response.count != 0 {
            fields.insert("count".into(), json!(response.count));
        }
        output::line(&serde_json::Value::Object(fields).to_string());
        return;
    }
    for kv in &response.kvs {
        if args.is_on("print-value-only") {
            output::raw(&kv.value, client.hex);
        } else {
            output::key_value(kv, client.hex);
        }
    }
}

/// `del <key> [range_end]`.
pub(crate) async fn del(rest: Vec<String>) -> Result<(), Failure> {
    const SPEC: Spec = Spec { values: &[], switches: &["prefix", "from-key", "prev-kv", "range"] };
    let args = Args::read(rest, SPEC)?;
    let (key, range_end) = range(&args, "del")?;
    let client = Client::connect(&args).await?;
    let request = DeleteRangeRequest { key, range_end, prev_kv: args.is_on("prev-kv") };
    let response = client.ask(kv(&client).delete_range(request)).await?;
    if client.json {
        let mut fields = Map::new();
        fields.insert("header".into(), output::header(response.header.as_ref()));
        if response.deleted != 0 {
            fields.insert("deleted".into(), json!(response.deleted));
        }
        if !response.prev_kvs.is_empty() {
            fields
                .insert("prev_kvs".into(), response.prev_kvs.iter().map(output::kv_json).collect());
        }
        output::line(&serde_json::Value::Object(fields).to_string());
        return Ok(());
    }
    output::line(&response.deleted.to_string());
    response.prev_kvs.iter().for_each(|kv| output::key_value(kv, client.hex));
    Ok(())
}

/// `compaction <revision>`.
pub(crate) async fn compaction(rest: Vec<String>) -> Result<(), Failure> {
    const SPEC: Spec = Spec { values: &[], switches: &["physical"] };
    let args = Args::read(rest, SPEC)?;
    let [revision] = args.positional.as_slice() else {
        return Err(Failure::bad_args("compaction command needs 1 argument"));
    };
    let revision: i64 = revision.parse().map_err(|_| {
        Failure::new(exit::ERROR, format!("strconv.ParseInt: parsing {revision:?}: invalid syntax"))
    })?;
    let client = Client::connect(&args).await?;
    let request = CompactionRequest { revision, physical: args.is_on("physical") };
    client.ask(kv(&client).compact(request)).await?;
    output::line(&format!("compacted revision {revision}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"ab").as_ref(), b"ac");
        assert_eq!(prefix_end(b"a\xff").as_ref(), b"b");
        assert_eq!(prefix_end(b"\xff").as_ref(), b"\0");
    }
}
