//! watch: one until it ends, or interactively any number; a program, if one is given, is run for each
//! event.

use std::cell::RefCell;
use std::rc::Rc;

use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;

use crate::cli::command::Path;
use crate::client::Client;
use crate::client::requests::prefix_end;
use crate::client::watch::Watch;
use crate::command::watch_args::split;
use crate::command::{Context, execute};
use crate::go::scan;
use crate::print::{Printer, out};
use crate::{Failure, exit};
use gocompat::flags::{Values, Word};
use gocompat::quote::quote;

/// # Errors
/// The arguments are invalid, or the watch ended.
pub(crate) async fn watch(mut context: Context) -> Result<(), Failure> {
    let variable = |name: &str| {
        use std::os::unix::ffi::OsStringExt;
        std::env::var_os(name).map(OsStringExt::into_vec).filter(|it| !it.is_empty())
    };
    let (key, end) = (variable("ETCDCTL_WATCH_KEY"), variable("ETCDCTL_WATCH_RANGE_END"));
    if let (None, Some(end)) = (&key, &end) {
        let text =
            format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={}", quote(end));
        return Err(Failure::bad_args(text));
    }
    let named: Vec<Word> = match key {
        Some(key) => [key].into_iter().chain(end).collect(),
        None => Vec::new(),
    };
    if context.values.is_on("interactive") {
        return interactive(context, named).await;
    }
    let after = context.words.iter().position(|it| it == b"watch").map_or(0, |it| it + 1);
    let parts = split(&context.words[after..], context.args(), &named, false);
    let (keys, command) = parts.map_err(Failure::bad_args)?;
    let (client, printer) = context.connect().await?;
    let create = request(&context.values, &keys).map_err(Failure::bad_args)?;
    let (_never, progress) = mpsc::channel(1);
    follow(&client, &printer, create, &command, progress).await?;
    Err(Failure::new(exit::INTERRUPTED, "watch is canceled by the server"))
}

fn request(values: &Values, keys: &[Word]) -> Result<WatchCreateRequest, &'static str> {
    let key = keys.first().ok_or("bad number of arguments")?;
    let prefix = values.is_on("prefix");
    let mut create = WatchCreateRequest {
        key: Bytes::from(key.clone()),
        start_revision: values.int("rev"),
        prev_kv: values.is_on("prev-kv"),
        progress_notify: values.is_on("progress-notify"),
        ..WatchCreateRequest::default()
    };
    if let [_, end] = keys {
        if prefix {
            return Err("`range_end` and `--prefix` are mutually exclusive");
        }
        create.range_end = Bytes::from(end.clone());
    }
    if prefix {
        create.range_end = prefix_end(key);
        if key.is_empty() {
            create.key = Bytes::from_static(b"\0");
        }
    }
    Ok(create)
}

/// Prints the responses of a watch until it ends; a message on `progress` requests a progress notification.
async fn follow(
    client: &Client,
    printer: &Printer,
    create: WatchCreateRequest,
    command: &[Word],
    mut progress: mpsc::Receiver<()>,
) -> Result<(), Failure> {
    let mut watch = Watch::new(client, create, true);
    loop {
        let told = tokio::select! {
            told = watch.next() => told,
            Some(()) = progress.recv() => {
                watch.ask_progress().await;
                continue;
            }
        };
        let Some(told) = told else { return Ok(()) };
        let response = told.response;
        if let Some(why) = told.ended {
            out::error(&format!("watch was canceled ({why})"));
        } else if response.events.is_empty() && response.header.is_some_and(|it| it.revision != 0) {
            let revision = response.header.unwrap_or_default().revision;
            out::line(&format!("progress notify: {revision}"));
        }
        printer.show(&response)?;
        if !command.is_empty() {
            tell(&response, command).await?;
        }
    }
}

/// Runs the command once per event.
async fn tell(response: &WatchResponse, command: &[Word]) -> Result<(), Failure> {
    let revision = response.header.unwrap_or_default().revision;
    for event in &response.events {
        let kv = event.kv.clone().unwrap_or_default();
        let environment = [
            ("ETCD_WATCH_REVISION", revision.to_string()),
            ("ETCD_WATCH_EVENT_TYPE", quote(event.r#type().as_str_name())),
            ("ETCD_WATCH_KEY", quote(&kv.key)),
            ("ETCD_WATCH_VALUE", quote(&kv.value)),
        ];
        if let Err(unwell) = execute::run(command, &environment).await {
            let words: Vec<String> = command.iter().map(quote).collect();
            out::error(&format!("command [{}] error ({})", words.join(" "), unwell.text));
            return Err(Failure::silent(exit::ERROR));
        }
    }
    Ok(())
}

/// Reads lines of the form `watch ...` and `progress`.
async fn interactive(mut context: Context, named: Vec<Word>) -> Result<(), Failure> {
    let (client, printer) = context.connect().await?;
    // Every watch of this session uses it, and the session ends with the process.
    let client: &'static Client = Box::leak(Box::new(client));
    let running: Rc<RefCell<Vec<mpsc::Sender<()>>>> = Rc::default();
    let (fatal, mut failed) = mpsc::channel::<Failure>(1);
    let mut lines = BufReader::new(tokio::io::stdin());
    loop {
        let mut line = Vec::new();
        tokio::select! {
            read = lines.read_until(b'\n', &mut line) => {
                if read.is_err() || line.pop() != Some(b'\n') {
                    let text = "error reading watch request line: EOF";
                    return Err(Failure::new(exit::INVALID_INPUT, text));
                }
            }
            Some(failure) = failed.recv() => return Err(failure),
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let words = scan::words(&line).map_err(|it| Failure::new(exit::INVALID_INPUT, it))?;
        match words.first().map(Vec::as_slice) {
            None => {
                out::error(&format!("Invalid command: {line} (watch and progress supported)"));
            }
            Some(b"watch") => {
                let Some((create, command)) = line_request(&context.path, &line, &words, &named)?
                else {
                    continue;
                };
                let (asker, progress) = mpsc::channel(1);
                running.borrow_mut().push(asker);
                let fatal = fatal.clone();
                tokio::task::spawn_local(async move {
                    let followed = follow(client, &printer, create, &command, progress).await;
                    if let Err(failure) = followed {
                        let _ = fatal.send(failure).await;
                    }
                });
            }
            Some(b"progress") => {
                running.borrow_mut().retain(|it| !it.is_closed());
                for asker in running.borrow().iter() {
                    let _ = asker.try_send(());
                }
            }
            Some(_) => out::error(&format!("Invalid command {line} (only support watch)")),
        }
    }
}

type Order = (WatchCreateRequest, Vec<Word>);

/// The watch that a line asks for; `None` if it was refused but the session goes on.
fn line_request(
    path: &Path,
    line: &str,
    words: &[Word],
    named: &[Word],
) -> Result<Option<Order>, Failure> {
    let refuse = |why: &str| out::error(&format!("Invalid command {line} ({why})"));
    if words.len() < 2 && named.is_empty() {
        refuse("command type or key is not provided");
        return Ok(None);
    }
    // Only the flags of the watch command are known here.
    let own = Path(vec![path.command()]);
    let values = Values::read(own.local(), own.above(), &words[1..]).map_err(Failure::bad_args)?;
    let parts = split(&words[1..], &values.args, named, true);
    let (keys, command) = parts.map_err(Failure::bad_args)?;
    match request(&values, &keys) {
        Ok(create) => Ok(Some((create, command))),
        Err(why) => {
            refuse(why);
            Ok(None)
        }
    }
}
