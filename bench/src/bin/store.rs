//! The limit of every change: documents of a function's size, committed durably by many at once.
//!
//! usage: store FOLDER CONCURRENCY COUNT; prints commits a second.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use ondol_store::{Store, Transaction};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, concurrency, count] = &arguments[..] else {
        return Err("store FOLDER CONCURRENCY COUNT".into());
    };
    let (concurrency, count): (usize, usize) = (concurrency.parse()?, count.parse()?);
    let store = Store::open(std::path::Path::new(folder))?;
    let document = json!({"name": "bench", "configuration": {"text": "x".repeat(1_000)}});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rate = runtime.block_on(async {
        let started = Instant::now();
        let writers: Vec<_> = (0..concurrency)
            .map(|writer| {
                let (store, document) = (store.clone(), document.clone());
                tokio::spawn(async move {
                    for number in (writer..count).step_by(concurrency) {
                        let key = format!("function/raw-{number}");
                        store.commit(Transaction::default().put(key, &document)).await?;
                    }
                    Ok::<(), ondol_store::StoreError>(())
                })
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        #[allow(clippy::cast_precision_loss)]
        Ok::<f64, Box<dyn std::error::Error>>(count as f64 / started.elapsed().as_secs_f64())
    })?;
    println!("{rate:.0}");
    Ok(())
}
