//! Rules that are not kept everywhere yet: how often each part of the tree may break them. The
//! numbers may only shrink; what is not listed may not break the rule at all.

use std::collections::BTreeMap;

/// One place that breaks a rule.
#[derive(Debug)]
pub struct Finding {
    /// The part of the tree that is counted.
    pub part: String,
    /// The place and the fault, for the reader.
    pub fault: String,
    /// The weight in the sum of its part.
    pub weight: usize,
}

/// Fails where a part breaks a rule more often than `allowed` says. Says which numbers can be
/// lowered.
#[track_caller]
pub fn hold(allowed: &[(&str, usize)], found: Vec<Finding>) {
    let mut parts: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for (part, _) in allowed {
        parts.entry((*part).into()).or_default();
    }
    for finding in found {
        let (sum, faults) = parts.entry(finding.part).or_default();
        *sum += finding.weight;
        faults.push(finding.fault);
    }
    let mut complaints = Vec::new();
    for (part, (sum, faults)) in &parts {
        let limit = allowed.iter().find(|(name, _)| name == part);
        let limit = limit.map_or(0, |(_, limit)| *limit);
        if *sum > limit {
            complaints.extend(faults.iter().cloned());
            complaints.push(format!("{part}: {sum} in all, {limit} allowed"));
        } else if *sum < limit {
            eprintln!("tests/tidy: {part} has {sum} of {limit} allowed: lower the number");
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
