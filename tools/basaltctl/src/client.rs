//! Connections to the endpoints.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::args::Args;
use crate::{Failure, exit};

/// A connection and what the global flags say.
pub(crate) struct Client {
    /// The connection.
    pub(crate) channel: Channel,
    /// `--write-out`.
    pub(crate) json: bool,
    /// `--hex`.
    pub(crate) hex: bool,
    /// `--command-timeout`.
    timeout: Duration,
}

/// All endpoints, as typed.
pub(crate) fn endpoints(args: &Args) -> Vec<String> {
    let list = args.get("endpoints", "127.0.0.1:2379");
    list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect()
}

fn seconds(args: &Args, name: &str, default: &str) -> Result<Duration, Failure> {
    let text = args.get(name, default);
    let invalid =
        || Failure::new(exit::ERROR, format!("invalid argument {text:?} for \"--{name}\" flag"));
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => match text.strip_suffix('m') {
            Some(number) => (number, 60.0),
            None => (text.strip_suffix('s').ok_or_else(invalid)?, 1.0),
        },
    };
    let number: f64 = number.parse().map_err(|_| invalid())?;
    Ok(Duration::from_secs_f64(number * factor))
}

impl Client {
    /// Connects to the first endpoint that answers.
    pub(crate) async fn connect(args: &Args) -> Result<Self, Failure> {
        Self::connect_to(args, &endpoints(args)).await
    }

    /// Connects to the first of these that answers.
    pub(crate) async fn connect_to(args: &Args, endpoints: &[String]) -> Result<Self, Failure> {
        let json = match args.get("write-out", "simple").as_str() {
            "simple" => false,
            "json" => true,
            _ => return Err(Failure::new(4, "unsupported output format")),
        };
        let dial = seconds(args, "dial-timeout", "2s")?;
        let timeout = seconds(args, "command-timeout", "5s")?;
        for endpoint in endpoints {
            if endpoint.starts_with("https") || endpoint.starts_with("unix") {
                let text = format!("basaltctl does not support {endpoint} yet");
                return Err(Failure::new(exit::ERROR, text));
            }
            let address = endpoint.strip_prefix("http://").unwrap_or(endpoint);
            let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else { continue };
            if let Ok(channel) = endpoint.connect_timeout(dial).connect().await {
                return Ok(Self { channel, json, hex: args.is_on("hex"), timeout });
            }
        }
        Err(Failure::new(exit::ERROR, "context deadline exceeded"))
    }

    /// A request that ends with the command's time.
    pub(crate) async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Failure::new(exit::ERROR, "context deadline exceeded")),
        }
    }
}
