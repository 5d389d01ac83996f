//! The actions of the commands, one file per group.

pub(crate) mod alarm;
pub(crate) mod auth;
pub(crate) mod can_i;
pub(crate) mod check;
pub(crate) mod complete;
pub(crate) mod concurrency;
pub(crate) mod downgrade;
pub(crate) mod elect;
pub(crate) mod endpoint;
pub(crate) mod execute;
pub(crate) mod info;
pub(crate) mod keys;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod member;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod role;
pub(crate) mod snapshot;
pub(crate) mod txn;
pub(crate) mod user;
pub(crate) mod watch;
pub(crate) mod watch_args;

use crate::Failure;
use crate::cli::action::Action;
use crate::cli::command::Path;
use crate::client::Client;
use crate::client::settings::Settings;
use crate::print::Printer;
use gocompat::flags::{Values, Word};

/// A parsed command line.
pub(crate) struct Context {
    pub(crate) values: Values,
    pub(crate) path: Path,
    /// All words as typed.
    pub(crate) words: Vec<Word>,
}

impl Context {
    pub(crate) fn args(&self) -> &[Word] {
        &self.values.args
    }

    /// An argument as text.
    pub(crate) fn arg(&self, at: usize) -> String {
        String::from_utf8_lossy(&self.values.args[at]).into_owned()
    }

    /// Refuses any other number of arguments.
    ///
    /// # Errors
    /// `text`.
    pub(crate) fn exactly(&self, count: usize, text: &str) -> Result<(), Failure> {
        match self.values.args.len() == count {
            true => Ok(()),
            false => Err(Failure::bad_args(text)),
        }
    }

    pub(crate) async fn settings(&mut self) -> Result<(Settings, Printer), Failure> {
        let watch = self.path.command().name() == "watch";
        Settings::read(&mut self.values, watch).await
    }

    pub(crate) async fn connect(&mut self) -> Result<(Client, Printer), Failure> {
        let (settings, printer) = self.settings().await?;
        Ok((settings.client().await?, printer))
    }
}

/// Runs a command.
///
/// # Errors
/// The command ends with an exit code other than 0.
pub(crate) async fn run(action: Action, context: Context) -> Result<(), Failure> {
    use Action as A;
    match action {
        A::Get => keys::get(context).await,
        A::Put => keys::put(context).await,
        A::Del => keys::del(context).await,
        A::Txn => txn::txn(context).await,
        A::Compaction => keys::compaction(context).await,
        A::Watch => watch::watch(context).await,
        A::LeaseGrant => lease::grant(context).await,
        A::LeaseRevoke => lease::revoke(context).await,
        A::LeaseTimeToLive => lease::time_to_live(context).await,
        A::LeaseList => lease::list(context).await,
        A::LeaseKeepAlive => lease::keep_alive(context).await,
        A::AlarmDisarm => alarm::disarm(context).await,
        A::AlarmList => alarm::list(context).await,
        A::Defrag => Box::pin(endpoint::defrag(context)).await,
        A::EndpointHealth => endpoint::health(context).await,
        A::EndpointStatus => endpoint::status(context).await,
        A::EndpointHashKv => endpoint::hash_kv(context).await,
        A::MoveLeader => member::move_leader(context).await,
        A::MemberAdd => member::add(context).await,
        A::MemberRemove => member::remove(context).await,
        A::MemberUpdate => member::update(context).await,
        A::MemberList => member::list(context).await,
        A::MemberPromote => member::promote(context).await,
        A::SnapshotSave => snapshot::save(context).await,
        A::DowngradeValidate | A::DowngradeEnable | A::DowngradeCancel => {
            downgrade::downgrade(action, context).await
        }
        A::Lock => lock::lock(context).await,
        A::Elect => elect::elect(context).await,
        A::AuthEnable => auth::enable(context).await,
        A::AuthDisable => auth::disable(context).await,
        A::AuthStatus => auth::status(context).await,
        A::AuthCanI => can_i::can_i(context).await,
        A::UserAdd => user::add(context).await,
        A::UserDelete => user::delete(context).await,
        A::UserGet => user::get(context).await,
        A::UserList => user::list(context).await,
        A::UserPasswd => user::passwd(context).await,
        A::UserGrantRole => user::grant_role(context).await,
        A::UserRevokeRole => user::revoke_role(context).await,
        A::RoleAdd => role::add(context).await,
        A::RoleDelete => role::delete(context).await,
        A::RoleGet => role::get(context).await,
        A::RoleList => role::list(context).await,
        A::RoleGrantPermission => role::grant_permission(context).await,
        A::RoleRevokePermission => role::revoke_permission(context).await,
        A::CheckPerf => check::perf(context).await,
        A::CheckDatascale => check::datascale(context).await,
        A::MakeMirror => mirror::make_mirror(context).await,
        A::Completion => complete::script(&context),
        A::Options | A::Version | A::Help => info::info(action, &context),
    }
}
