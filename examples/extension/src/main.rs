//! An extension that hears of the end of its execution environment, made with AWS's own crate. In a layer it lies at
//! `extensions/lifecycle`. On Lambda Managed Instances an extension may only register for SHUTDOWN.

use lambda_extension::{Error, Extension, LambdaEvent, NextEvent, service_fn};

async fn hear(event: LambdaEvent) -> Result<(), Error> {
    if let NextEvent::Shutdown(shutdown) = event.next {
        println!("lifecycle: the environment ends: {}", shutdown.shutdown_reason);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    println!("lifecycle: started for {}", std::env::var("AWS_LAMBDA_FUNCTION_NAME")?);
    Extension::new().with_events(&["SHUTDOWN"]).with_events_processor(service_fn(hear)).run().await
}
