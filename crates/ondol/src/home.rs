//! Whose data folder this is: the account and region every ARN in it names. They are kept with the data, so that
//! it can be started again without them, and never under others.

use anyhow::{Context as _, Result, bail};
use ondol_core::identity::Home;
use ondol_store::{Store, Transaction, keys};

pub const ACCOUNT_ID_DEFAULT: &str = "000000000000";
pub const REGION_DEFAULT: &str = "us-east-1";

/// The home of a data folder; a new folder, or one of an older version, gets the one that is asked for.
pub async fn settle(store: &Store, account_id: Option<&str>, region: Option<&str>) -> Result<Home> {
    let kept: Option<Home> = store.document(keys::HOME)?.map(|(home, _)| home);
    if let Some(kept) = kept {
        let other = |asked: Option<&str>, kept: &str| asked.is_some_and(|asked| asked != kept);
        if other(account_id, &kept.account_id) || other(region, &kept.region) {
            bail!(
                "this data folder belongs to account {} in {}, and its ARNs say so; start it without --account-id and --region, or use another --data-dir",
                kept.account_id,
                kept.region
            );
        }
        return Ok(kept);
    }
    // Whatever an older version holds is of the account and region it knew.
    let is_new = store.scan("", None, 1).is_empty();
    if !is_new
        && (account_id.is_some_and(|asked| asked != ACCOUNT_ID_DEFAULT)
            || region.is_some_and(|asked| asked != REGION_DEFAULT))
    {
        bail!(
            "this data folder was made by an older version, for account {ACCOUNT_ID_DEFAULT} in {REGION_DEFAULT}; start it without --account-id and --region"
        );
    }
    let home = Home {
        account_id: account_id.unwrap_or(ACCOUNT_ID_DEFAULT).to_owned(),
        region: region.unwrap_or(REGION_DEFAULT).to_owned(),
    };
    store
        .commit(Transaction::default().put(keys::HOME.to_owned(), &home))
        .await
        .context("keeping the account and region")?;
    Ok(home)
}
