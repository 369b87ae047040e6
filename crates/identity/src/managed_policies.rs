//! The managed policies AWS keeps: those that functions and who works with them need. Documents as AWS publishes
//! them, but for `ReadOnlyAccess`, which AWS spells out action by action.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use ondol_core::policy::{Policy, PolicyUse};
use ondol_wire::sigv4::sha256;

use crate::random::letters_of;

/// A policy AWS keeps.
#[derive(Debug)]
pub struct AwsManagedPolicy {
    pub name: &'static str,
    pub path: &'static str,
    pub description: &'static str,
    /// The number of the version AWS has by default.
    pub version: u32,
    pub document: &'static str,
}

impl AwsManagedPolicy {
    /// `arn:aws:iam::aws:policy/…`.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::aws:policy{}{}", self.path, self.name)
    }

    /// An id of AWS's form; AWS's own ids are not published.
    pub fn id(&self) -> String {
        format!("ANPA{}", letters_of(&sha256(self.name.as_bytes()), 17))
    }
}

macro_rules! aws {
    ($name:literal, $path:literal, $version:literal, $description:literal) => {
        AwsManagedPolicy {
            name: $name,
            path: $path,
            description: $description,
            version: $version,
            document: include_str!(concat!("managed_policies/", $name, ".json")),
        }
    };
}

/// All of them, in the order of their names.
pub const AWS_MANAGED_POLICIES: &[AwsManagedPolicy] = &[
    aws!(
        "AWSLambdaBasicExecutionRole",
        "/service-role/",
        1,
        "Provides write permissions to CloudWatch Logs."
    ),
    aws!(
        "AWSLambdaDynamoDBExecutionRole",
        "/service-role/",
        1,
        "Provides list and read access to DynamoDB streams and write permissions to CloudWatch Logs."
    ),
    aws!("AWSLambdaExecute", "/", 1, "Provides Put, Get access to S3 and full access to CloudWatch Logs."),
    aws!("AWSLambdaInvocation-DynamoDB", "/", 1, "Provides read access to DynamoDB Streams."),
    aws!(
        "AWSLambdaKinesisExecutionRole",
        "/service-role/",
        1,
        "Provides list and read access to Kinesis streams and write permissions to CloudWatch logs."
    ),
    aws!(
        "AWSLambdaMSKExecutionRole",
        "/service-role/",
        2,
        "Provides permissions required to access MSK Cluster within a VPC, manage ENIs in the VPC and write permissions to CloudWatch Logs."
    ),
    aws!(
        "AWSLambdaManagedEC2ResourceOperator",
        "/",
        1,
        "Grants permissions to create and manage the EC2 resources of Lambda Managed Instances."
    ),
    aws!("AWSLambdaRole", "/service-role/", 1, "Default policy for AWS Lambda service role."),
    aws!(
        "AWSLambdaSQSQueueExecutionRole",
        "/service-role/",
        1,
        "Provides receive message, delete message, and read attribute access to SQS queues, and write permissions to CloudWatch logs."
    ),
    aws!(
        "AWSLambdaVPCAccessExecutionRole",
        "/service-role/",
        3,
        "Provides minimum permissions for a Lambda function to execute while accessing a resource within a VPC."
    ),
    aws!(
        "AWSLambda_FullAccess",
        "/",
        3,
        "Grants full access to AWS Lambda service, AWS Lambda console features, and other related AWS services."
    ),
    aws!(
        "AWSLambda_ReadOnlyAccess",
        "/",
        3,
        "Grants read-only access to AWS Lambda service, AWS Lambda console features, and other related AWS services."
    ),
    aws!(
        "AWSXRayDaemonWriteAccess",
        "/",
        2,
        "Allow the AWS X-Ray Daemon to relay raw trace segments data to the service's API and retrieve sampling data."
    ),
    aws!("AWSXrayWriteOnlyAccess", "/", 2, "AWS X-Ray write only managed policy"),
    aws!("AdministratorAccess", "/", 1, "Provides full access to AWS services and resources."),
    aws!("AmazonS3FullAccess", "/", 2, "Provides full access to all buckets via the AWS Management Console."),
    aws!(
        "AmazonS3ReadOnlyAccess",
        "/",
        3,
        "Provides read only access to all buckets via the AWS Management Console."
    ),
    aws!("CloudWatchFullAccess", "/", 4, "Provides full access to CloudWatch."),
    aws!(
        "CloudWatchLambdaInsightsExecutionRolePolicy",
        "/",
        1,
        "Policy required for the Lambda Insights Extension"
    ),
    aws!(
        "PowerUserAccess",
        "/",
        8,
        "Provides full access to AWS services and resources, but does not allow management of Users and groups."
    ),
    aws!(
        "ReadOnlyAccess",
        "/",
        1,
        "Provides read-only access to AWS services and resources. An approximation: by the first word of an action."
    ),
    aws!(
        "SecretsManagerReadWrite",
        "/",
        5,
        "Provides read/write access to AWS Secrets Manager via the AWS Management Console."
    ),
];

/// Each with its document read, by ARN. A test reads them all.
static BY_ARN: LazyLock<BTreeMap<String, (&'static AwsManagedPolicy, Arc<Policy>)>> = LazyLock::new(|| {
    AWS_MANAGED_POLICIES
        .iter()
        .filter_map(|policy| {
            let document = Policy::parse(policy.document, PolicyUse::Identity).ok()?;
            Some((policy.arn(), (policy, Arc::new(document))))
        })
        .collect()
});

/// A policy of AWS by its ARN, and its document, read.
pub fn aws_managed_policy(arn: &str) -> Option<(&'static AwsManagedPolicy, Arc<Policy>)> {
    BY_ARN.get(arn).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_read_and_names_are_in_order() {
        assert_eq!(BY_ARN.len(), AWS_MANAGED_POLICIES.len());
        assert!(AWS_MANAGED_POLICIES.is_sorted_by_key(|policy| policy.name));
        let (policy, _) =
            aws_managed_policy("arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole").unwrap();
        assert_eq!((policy.name, policy.id().len()), ("AWSLambdaBasicExecutionRole", 21));
        assert!(aws_managed_policy("arn:aws:iam::aws:policy/AWSLambdaBasicExecutionRole").is_none());
    }
}
