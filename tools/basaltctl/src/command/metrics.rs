//! Reads one number from a server's `/metrics`.

use dial::{Dialer, authority, tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::settings::Settings;

const NAME: &str = "process_resident_memory_bytes";

/// Resident memory of the server in bytes.
///
/// # Errors
/// The line that reports the error.
pub(crate) async fn resident_memory(settings: &Settings, endpoint: &str) -> Result<f64, String> {
    let text = fetch(settings, endpoint).await.map_err(|it| format!("fetch error: {it}"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(NAME));
    let value = lines.next().ok_or_else(|| format!("could not find: {NAME}"))?;
    value.trim().parse().map_err(|it| format!("parse error: {it}"))
}

async fn fetch(settings: &Settings, endpoint: &str) -> Result<String, String> {
    let tls = tls::config(&settings.security)?.map(|it| {
        let mut config = (*it).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.into()
    });
    let tls = tls.filter(|_| endpoint.starts_with("https://"));
    let dialer = Dialer::new(endpoint, tls, tls::default);
    let mut socket = dialer.open(endpoint).await?;
    let host = authority(endpoint);
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.map_err(|it| it.to_string())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.map_err(|it| it.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
