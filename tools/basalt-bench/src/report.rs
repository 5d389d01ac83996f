//! What a run took: records latencies in bounded memory, and says the result as etcd's text, as
//! percentiles, and as JSON.

mod json;
mod recorder;
mod text;

pub use json::{Facts, Verified, write as write_json};
pub use recorder::{Recorder, Second};
pub use text::Style;
