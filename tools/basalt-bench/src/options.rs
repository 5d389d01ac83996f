//! Flags that every load has.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::generator::Rate;

/// Flags of every load.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// gRPC endpoints
    #[arg(long, global = true, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// Total number of gRPC connections
    #[arg(long, global = true, default_value_t = 1)]
    pub conns: usize,
    /// Total number of gRPC clients: operations in flight
    #[arg(long, global = true, default_value_t = 1)]
    pub clients: usize,
    /// use full floating point precision
    #[arg(long, global = true)]
    pub precise: bool,
    /// 'true' to sample requests for every second
    #[arg(long, global = true)]
    pub sample: bool,
    /// identify HTTPS client using this SSL certificate file
    #[arg(long, global = true, requires = "key_file")]
    pub cert: Option<PathBuf>,
    /// identify HTTPS client using this SSL key file
    #[arg(long = "key", id = "key_file", global = true, requires = "cert")]
    pub key_file: Option<PathBuf>,
    /// verify certificates of HTTPS-enabled servers using this CA bundle
    #[arg(long, global = true)]
    pub cacert: Option<PathBuf>,
    /// skip server certificate verification
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// provide username[:password]; the password is read from standard input if not supplied
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// dial timeout for client connections (0 is 5s)
    #[arg(long, global = true, default_value = "0", value_parser = gocompat::duration::parse)]
    pub dial_timeout: Duration,
    /// AutoSyncInterval is the interval to update endpoints with its latest members (0 is never):
    /// connections made after an update use them
    #[arg(long, global = true, default_value = "0", value_parser = gocompat::duration::parse)]
    pub auto_sync_interval: Duration,
    /// Generate benchmark report in perfdash format
    #[arg(long, global = true)]
    pub report_perfdash: bool,
    /// Write the result as JSON lines to this file, or to standard output with -
    #[arg(long, global = true, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Threads of the generator
    #[arg(long, global = true, default_value_t = 1)]
    pub threads: usize,
    /// Seed of random keys and values
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// Write the result as a page with plots to this file
    #[arg(long, global = true, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// End after this time instead of after --total (0: no time limit)
    #[arg(long, global = true, default_value = "0", value_parser = gocompat::duration::parse)]
    pub duration: Duration,
    /// Increase the rate linearly from --ramp-from to --rate in this time
    #[arg(long, global = true, default_value = "0", value_parser = gocompat::duration::parse)]
    pub ramp: Duration,
    /// Operations per second at the start of --ramp
    #[arg(long, global = true, default_value_t = 0)]
    pub ramp_from: u64,
    /// Endpoints of a second target, to be loaded and compared in the same run
    #[arg(long, global = true, value_delimiter = ',')]
    pub against: Vec<String>,
    /// Names of the targets in reports, comma-separated (by default their first endpoint)
    #[arg(long, global = true, value_delimiter = ',')]
    pub names: Vec<String>,
    /// Number of turns of each of two targets
    #[arg(long, global = true, default_value_t = 3, conflicts_with = "together")]
    pub turns: usize,
    /// Load both targets at the same time instead of in turns
    #[arg(long, global = true)]
    pub together: bool,
    /// Do not check that the revision grew by the writes (when others write, too)
    #[arg(long, global = true)]
    pub no_verify: bool,
}

impl Globals {
    /// True if every second is to be recorded.
    pub fn series(&self) -> bool {
        self.sample || self.json.is_some() || self.report.is_some()
    }

    /// The intended send times at this rate.
    ///
    /// # Errors
    /// The ramp's flags contradict each other.
    pub fn pace(&self, rate: u64) -> Result<Rate, String> {
        if !self.ramp.is_zero() && rate == 0 {
            return Err("--ramp needs a --rate to climb to".to_owned());
        }
        Ok(Rate { rate, ramp_from: self.ramp_from, ramp: self.ramp, end: self.duration })
    }
}
