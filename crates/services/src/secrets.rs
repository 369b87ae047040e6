//! Credentials of event sources, by the ARN of their secret: from a folder of the operator's, or from Secrets Manager
//! where the operator says where it is.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::{Asked, ServiceEndpoints};

const SECRET_BYTES_MAX: usize = 64 << 10;
/// A hyphen and six letters that Secrets Manager adds to a name.
const SUFFIX_BYTES: usize = 7;

#[derive(Debug, Clone, Default)]
pub struct Secrets {
    pub folder: Option<PathBuf>,
}

/// Never printed.
#[derive(Clone)]
pub struct BasicCredentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicCredentials").finish_non_exhaustive()
    }
}

impl Secrets {
    /// The error is a sentence without anything of the secret.
    pub async fn basic(&self, services: &ServiceEndpoints, arn: &str) -> Result<BasicCredentials, String> {
        let text = self.read(services, arn).await?;
        let secret: Value =
            serde_json::from_str(&text).map_err(|_| format!("The secret {arn} holds no JSON object."))?;
        match (secret["username"].as_str(), secret["password"].as_str()) {
            (Some(username), Some(password)) => {
                Ok(BasicCredentials { username: username.to_owned(), password: password.to_owned() })
            }
            _ => Err(format!("The secret {arn} must be a JSON object with username and password.")),
        }
    }

    async fn read(&self, services: &ServiceEndpoints, arn: &str) -> Result<String, String> {
        if let Some(path) = self.folder.as_deref().and_then(|folder| file_of(folder, arn)) {
            return std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()));
        }
        if !services.has("secretsmanager") {
            let folder = self
                .folder
                .as_ref()
                .map_or("--secrets-dir DIR".into(), |folder| folder.display().to_string());
            return Err(format!(
                "The secret {arn} is no file in {folder}, and no --service-endpoint secretsmanager=URL says where to ask for it."
            ));
        }
        let body = serde_json::json!({"SecretId": arn});
        let asked = Asked::json("1.1", "secretsmanager.GetSecretValue", &body);
        let response = services.call("secretsmanager", asked, SECRET_BYTES_MAX).await?;
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        match answer["SecretString"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => {
                let why = response.text("Message", "message").or_else(|| response.text("Message", "Message"));
                Err(format!(
                    "The secret {arn} can't be read ({}): {}",
                    response.status,
                    why.unwrap_or_default()
                ))
            }
        }
    }
}

/// The file of a secret: by its name, with or without what Secrets Manager adds.
fn file_of(folder: &Path, arn: &str) -> Option<PathBuf> {
    let name = arn.split(':').nth(6).unwrap_or(arn);
    let given = name.len().checked_sub(SUFFIX_BYTES).and_then(|end| name.split_at_checked(end));
    let given = given.filter(|(_, suffix)| suffix.starts_with('-')).map(|(given, _)| given);
    let is_plain = |name: &&str| {
        !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
    };
    [Some(name), given]
        .into_iter()
        .flatten()
        .filter(is_plain)
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn secrets_are_files_by_their_name() {
        let folder = std::env::temp_dir().join(format!("ondol-secrets-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("team")).unwrap();
        std::fs::write(folder.join("team/mq"), r#"{"username":"u","password":"p"}"#).unwrap();
        std::fs::write(folder.join("bad"), "u:p").unwrap();
        let secrets = Secrets { folder: Some(folder.clone()) };
        let services = ServiceEndpoints::default();
        let arn = |name: &str| format!("arn:aws:secretsmanager:us-east-1:000000000000:secret:{name}");
        for name in ["team/mq", "team/mq-AbCdEf"] {
            let found = secrets.basic(&services, &arn(name)).await.ok().unwrap();
            assert_eq!((found.username.as_str(), found.password.as_str()), ("u", "p"));
        }
        for (name, says) in [
            ("bad", "holds no JSON object"),
            ("other", "is no file in"),
            ("../../etc/passwd", "is no file in"),
            ("/etc/passwd", "is no file in"),
        ] {
            let why = secrets.basic(&services, &arn(name)).await.err().unwrap();
            assert!(why.contains(says) && !why.contains("u:p"), "{why}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
