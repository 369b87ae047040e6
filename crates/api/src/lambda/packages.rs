//! Deployment packages: from the request or from S3, checked, unpacked and kept by the hash of their bytes.

use ondol_core::function::Code;
use ondol_services::Asked;
use ondol_store::artifacts::{ArtifactError, Pinned, UNZIPPED_BYTES_MAX, ZIPPED_BYTES_MAX};
use ondol_wire::Blob;
use ondol_wire::fault::Fault;
use ondol_wire::uri::percent_encode;

use crate::context::Context;
use crate::faults::{fault, invalid};

/// A package of this size is hashed sooner than another thread is woken.
const HASHED_HERE_BYTES_MAX: usize = 64 << 10;

/// Where a package comes from: exactly one of the two.
#[derive(Debug, Default)]
pub struct Source {
    pub zip: Option<Blob>,
    pub s3: Option<S3Object>,
}

#[derive(Debug)]
pub struct S3Object {
    pub bucket: Option<String>,
    pub key: Option<String>,
    pub version: Option<String>,
}

impl S3Object {
    /// An object, if the request names any part of one.
    pub fn of(bucket: Option<String>, key: Option<String>, version: Option<String>) -> Option<Self> {
        (bucket.is_some() || key.is_some()).then_some(Self { bucket, key, version })
    }
}

/// Checks and keeps a package, off this thread. It stays while the pin lives: until the document that names it is
/// committed.
pub async fn store(context: &Context, source: Source, what: &str) -> Result<(Code, Pinned), Fault> {
    let bytes = match source {
        Source { zip: Some(_), s3: Some(_) } => {
            return Err(invalid(
                "Please do not provide other FunctionCode parameters when providing a ZipFile.",
            ));
        }
        Source { zip: Some(Blob(bytes)), .. } if bytes.len() > ZIPPED_BYTES_MAX => {
            let text = format!("Zipped size must be smaller than {ZIPPED_BYTES_MAX} bytes");
            return Err(Fault::new("RequestEntityTooLargeException", 413, text));
        }
        Source { zip: Some(Blob(bytes)), s3: None } => bytes,
        Source { zip: None, s3: Some(object) } => fetch(context, object).await?,
        Source { zip: None, s3: None } => {
            return Err(invalid(format!("Please provide a source for {what}.")));
        }
    };
    let size_bytes = bytes.len() as u64;
    let artifacts = context.artifacts.clone();
    if bytes.len() <= HASHED_HERE_BYTES_MAX {
        if let Some(pinned) = artifacts.known(&bytes) {
            return Ok((Code { sha256: pinned.sha256.clone(), size_bytes }, pinned));
        }
    }
    let stored = tokio::task::spawn_blocking(move || artifacts.put(&bytes)).await;
    match stored {
        Ok(Ok(pinned)) => Ok((Code { sha256: pinned.sha256.clone(), size_bytes }, pinned)),
        Ok(Err(error @ (ArtifactError::Unreadable(_) | ArtifactError::Unzipped))) => {
            Err(invalid(error.to_string()))
        }
        Ok(Err(error)) => Err(fault("ServiceException", format!("The package couldn't be stored: {error}"))),
        Err(_) => Err(fault("ServiceException", "The package couldn't be unpacked.")),
    }
}

async fn fetch(context: &Context, object: S3Object) -> Result<Vec<u8>, Fault> {
    let (Some(bucket), Some(key)) = (object.bucket, object.key) else {
        return Err(invalid("Please provide both S3Bucket and S3Key."));
    };
    // Paths with these would be read as other objects on the way.
    if key.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(invalid("An S3Key with . or .. between slashes isn't supported."));
    }
    may_read(context, &bucket, &key, object.version.is_some())?;
    let path = format!("/{}/{}", percent_encode(&bucket, false), percent_encode(&key, true));
    let query = object
        .version
        .map_or(String::new(), |version| format!("versionId={}", percent_encode(&version, false)));
    // Only what comes inside the request is bounded as zipped; a package must fit unpacked in any case.
    let limit = usize::try_from(UNZIPPED_BYTES_MAX).unwrap_or(usize::MAX);
    let response = context.services.call("s3", Asked::get(&path, &query), limit).await.map_err(invalid)?;
    if response.status == 200 {
        return Ok(response.body.to_vec());
    }
    let code = response.text("Code", "Code").unwrap_or_else(|| response.status.to_string());
    let message = response.text("Message", "Message").unwrap_or_default();
    Err(invalid(format!(
        "Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}"
    )))
}

/// Objects are fetched with this server's keys, so the caller's own permission is asked for first.
fn may_read(context: &Context, bucket: &str, key: &str, names_version: bool) -> Result<(), Fault> {
    let Some(asked) = &context.asked else { return Ok(()) };
    let action = if names_version { "s3:GetObjectVersion" } else { "s3:GetObject" };
    let resource = format!("arn:aws:s3:::{bucket}/{key}");
    let session_policy = asked.session_policy.as_deref();
    let authorizer = context.gatekeeper.authorizer();
    authorizer.authorize(&asked.caller, session_policy, action, &resource, &asked.context(), None).map_err(|_| {
        let text = format!(
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject for {bucket}/{key}. S3 Error Code: AccessDenied. S3 Error Message: Access Denied"
        );
        Fault::new("AccessDeniedException", 403, text)
    })
}
