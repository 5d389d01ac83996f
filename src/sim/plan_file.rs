//! Plans as files: JSON, one fault, request or watch a line, so that they can be read and edited. Parts removed from a
//! plan are omitted; requests and watches have their numbers, which others refer to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{ClientOp, Fault, From, Micros, Operation, Parameters, Plan, Watch};

#[derive(Serialize, Deserialize)]
struct PlanFile {
    seed: u64,
    lasts: Micros,
    parameters: Parameters,
    faults: Vec<(Micros, Fault)>,
    /// Operations by number; the plan had this many.
    operations: BTreeMap<usize, Operation>,
    operations_count: usize,
    watches: BTreeMap<usize, Watch>,
    watches_count: usize,
}

/// A request that is never made.
const NO_OPERATION: Operation =
    Operation { at: Micros::MAX, member: 1, timeout: 0, ask: ClientOp::GetPair };
/// A watch that never begins.
const NO_WATCH: Watch = Watch {
    at: Micros::MAX,
    key: None,
    from: From::Now,
    prev_kv: false,
    fragment: false,
    slowness: 0,
};

impl Plan {
    /// The text of a file.
    ///
    /// # Errors
    /// The plan cannot be written as JSON.
    pub fn to_text(&self) -> Result<String, String> {
        let kept = |at: Micros| at < Micros::MAX;
        let operations = self.operations.iter().copied().enumerate();
        let watches = self.watches.iter().copied().enumerate();
        let file = PlanFile {
            seed: self.seed,
            lasts: self.lasts,
            parameters: self.parameters.clone(),
            faults: self.faults.clone(),
            operations: operations.filter(|(_, it)| kept(it.at)).collect(),
            operations_count: self.operations.len(),
            watches: watches.filter(|(_, it)| kept(it.at)).collect(),
            watches_count: self.watches.len(),
        };
        let Value::Object(fields) = serde_json::to_value(file).map_err(|it| it.to_string())? else {
            return Err("a plan is an object".to_owned());
        };
        let fields: Vec<_> = fields.iter().map(|(name, value)| field(name, value)).collect();
        Ok(format!("{{\n{}\n}}\n", fields.join(",\n")))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The text is not a plan.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let file: PlanFile = serde_json::from_str(text).map_err(|it| it.to_string())?;
        let operation = |number| file.operations.get(&number).copied().unwrap_or(NO_OPERATION);
        let watch = |number| file.watches.get(&number).copied().unwrap_or(NO_WATCH);
        Ok(Self {
            seed: file.seed,
            lasts: file.lasts,
            operations: (0..file.operations_count).map(operation).collect(),
            watches: (0..file.watches_count).map(watch).collect(),
            parameters: file.parameters,
            faults: file.faults,
        })
    }
}

/// A field of the outermost object; elements of lists and of objects by number have a line each.
fn field(name: &str, value: &Value) -> String {
    let lines: Vec<_> = match value {
        Value::Array(elements) => elements.iter().map(|it| format!("    {it}")).collect(),
        Value::Object(elements) if elements.keys().all(|it| it.parse::<usize>().is_ok()) => {
            let mut elements: Vec<_> = elements.iter().collect();
            elements.sort_by_key(|(number, _)| number.parse::<usize>().unwrap_or_default());
            elements.iter().map(|(number, it)| format!("    {number:?}: {it}")).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return format!("  {name:?}: {value}");
        }
    };
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    match lines.is_empty() {
        true => format!("  {name:?}: {open}{close}"),
        false => format!("  {name:?}: {open}\n{}\n  {close}", lines.join(",\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back_from_its_text() {
        for seed in 0..30 {
            let dropped = (0..60).filter(|part| part % 7 < 3).collect();
            let plan = Plan::new(seed).without(&dropped);
            let text = plan.to_text().unwrap();
            let read = Plan::from_text(&text).unwrap();
            assert_eq!(read.to_text().unwrap(), text);
            assert_eq!(
                (read.parts(), format!("{:?}", read.parameters)),
                (plan.parts(), format!("{:?}", plan.parameters))
            );
        }
        assert!(Plan::from_text("{}").is_err());
    }
}
