//! How long simple tokens live that are used: a use counts at once on the member that sees it, and on the others by an entry
//! for all tokens, now and then. The leader has expired ones removed.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::token_renew_request::Renewal;
use basalt_proto::etcdserverpb::{TokenRenewRequest, TokenSweepRequest};
use futures_lite::future::yield_now;

use super::client::ReplicaClient;
use super::tokens::{TokenFormat, Tokens, now_ms};
use crate::command::Command;
use crate::io::clock;
use crate::token::TokenTable;
use crate::types::limits::{TOKEN_RENEWALS_MAX, TOKENS_SWEPT_MAX};

/// The longest time between two entries that renew tokens.
const RENEW_MAX: Duration = Duration::from_mins(1);
/// The shortest.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// Renews tokens that are used on this member, and has the leader remove those that expired. Never ends.
pub async fn run(client: ReplicaClient, tokens: Arc<Tokens>) {
    let &TokenFormat::Simple { ttl } = tokens.kind() else { return };
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let period = (ttl / 4).clamp(RENEW_MIN, RENEW_MAX);
    loop {
        clock::sleep(period).await;
        let (renewals, expired) = look(&tokens.table(), now_ms(), ttl_ms, period).await;
        for renewals in renewals.chunks(TOKEN_RENEWALS_MAX) {
            let renew = TokenRenewRequest { renewals: renewals.to_vec() };
            // One that fails is tried again with the next ones: the use is still noted.
            drop(client.propose(Command::TokenRenew(renew)).await);
        }
        if client.leads() {
            // Others may have noted uses that are on their way.
            let before_ms = swept_before_ms(now_ms(), period);
            for _ in 0..expired.div_ceil(TOKENS_SWEPT_MAX) {
                let sweep = Command::TokenSweep(TokenSweepRequest { before_ms });
                drop(client.propose(sweep).await);
            }
        }
    }
}

/// Tokens whose renewal on other members is due, and how many have expired for all.
async fn look(
    table: &TokenTable,
    now_ms: u64,
    ttl_ms: u64,
    period: Duration,
) -> (Vec<Renewal>, usize) {
    let (mut renewals, mut expired) = (Vec::new(), 0);
    let before_ms = swept_before_ms(now_ms, period);
    let mut parts = table.each_part(|index, token| {
        let (known_ms, ends_ms) = (token.expires_ms(), token.ends_ms(ttl_ms));
        expired += usize::from(known_ms < before_ms);
        let is_due = ends_ms > known_ms && ends_ms > now_ms;
        is_due.then_some(Renewal { index, expires_ms: ends_ms })
    });
    for part in parts.by_ref() {
        renewals.extend(part);
        yield_now().await;
    }
    drop(parts);
    (renewals, expired)
}

/// Tokens that expired before this time are not used any more, whichever member noted a use last.
fn swept_before_ms(now_ms: u64, period: Duration) -> u64 {
    now_ms.saturating_sub(2 * period.as_millis() as u64)
}
