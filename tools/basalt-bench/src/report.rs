//! Records latencies of a run in bounded memory, and prints the result as etcd's text, as
//! percentiles, as JSON and as a page with plots.

mod chart;
mod comparison;
mod finished;
mod json;
mod page;
mod perfdash;
mod recorder;
mod series;
mod text;

pub use comparison::{Comparison, How, Side};
pub use finished::{Finished, Report, Verified, Written};
pub use json::write as write_json;
pub use page::write as write_page;
pub use perfdash::write as write_perfdash;
pub use recorder::Recorder;
pub use series::{Interval, Series};
pub use text::Style;
