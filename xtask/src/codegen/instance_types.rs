//! The table of instance types, from the one that `moto` ships: what its authors had from DescribeInstanceTypes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::prepare::MOTO;
use crate::shell::run;

const TABLE: &str = "crates/core/src/instance_type/table.csv";
const FILE: &str = "moto/ec2/resources/instance_types.json.gz";

/// Downloads moto and writes the table anew.
pub fn fetch(root: &Path) -> Result<()> {
    let folder = root.join("target/moto");
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"])
        .arg(&folder)
        .arg(format!("moto=={MOTO}")))?;
    let script = "import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    let output = Command::new("python3").args(["-c", script]).arg(folder.join(FILE)).output()?;
    let types: Map<String, Value> =
        serde_json::from_slice(&output.stdout).with_context(|| format!("reading {FILE}"))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let today = ondol_wire::time::iso_8601_millis(i64::try_from(now)?)[..10].to_owned();
    std::fs::write(root.join(TABLE), table(&types, &today))?;
    Ok(())
}

fn table(types: &Map<String, Value>, today: &str) -> String {
    let mut rows: Vec<(String, u64, String)> =
        types.iter().filter_map(|(name, found)| row(name, found)).collect();
    rows.sort();
    let mut text = format!(
        "# Instance types of the families C, M and R: generations in sale, and from the sixth on; no bare metal.\n# Source: {FILE} of moto {MOTO} (PyPI, Apache-2.0), made by its authors from DescribeInstanceTypes; taken {today} by `cargo xtask codegen --fetch`.\ninstance_type,architecture,vcpus,memory_mib,network_baseline_mbps,network_peak_mbps,network_interfaces,ipv4_addresses_per_interface\n"
    );
    for (_, _, row) in rows {
        let _ = writeln!(text, "{row}");
    }
    text
}

/// A line of the table with what it is sorted by; none of a type that has no place in it.
fn row(name: &str, found: &Value) -> Option<(String, u64, String)> {
    let family = name.split('.').next()?;
    let generation = family.strip_prefix(['c', 'm', 'r'])?;
    let digits = generation.find(|c: char| !c.is_ascii_digit()).unwrap_or(generation.len());
    let generation: u32 = generation[..digits].parse().ok()?;
    let is_sold = found["CurrentGeneration"].as_bool()? && generation >= 5;
    if found["BareMetal"].as_bool()? || !(is_sold || generation >= 6) {
        return None;
    }
    let architectures = found["ProcessorInfo"]["SupportedArchitectures"].as_array()?;
    let known = |name: &&str| ["x86_64", "arm64"].contains(name);
    let architecture = architectures.iter().filter_map(Value::as_str).find(known)?;
    let vcpus = found["VCpuInfo"]["DefaultVCpus"].as_u64()?;
    let memory = found["MemoryInfo"]["SizeInMiB"].as_u64()?;
    let network = &found["NetworkInfo"];
    let cards = network["NetworkCards"].as_array()?;
    let mbps =
        |what: &str| (cards.iter().filter_map(|card| card[what].as_f64()).sum::<f64>() * 1_000.0).round();
    let row = format!(
        "{name},{architecture},{vcpus},{memory},{},{},{},{}",
        mbps("BaselineBandwidthInGbps"),
        mbps("PeakBandwidthInGbps"),
        network["MaximumNetworkInterfaces"].as_u64()?,
        network["Ipv4AddressesPerInterface"].as_u64()?
    );
    Some((family.to_owned(), vcpus, row))
}
