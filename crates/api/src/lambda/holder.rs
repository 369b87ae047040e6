//! What things hang on: `$LATEST`, a version or an alias, whichever a qualifier names.

use ondol_core::attached::{Alias, Attached};
use ondol_core::function::{Function, FunctionConfiguration, FunctionVersion};
use ondol_core::identity::Qualifier;
use ondol_store::{Precondition, Revision, Transaction, keys};
use ondol_wire::fault::Fault;

use super::names;
use crate::context::{Context, uuid};
use crate::faults::fault;

/// The document a qualifier names, as it was read.
#[derive(Debug, Clone)]
pub struct Holder {
    function: String,
    document: Document,
    revision: Revision,
}

#[derive(Debug, Clone)]
enum Document {
    Latest(Box<Function>),
    Version(Box<FunctionVersion>),
    Alias(Box<Alias>),
}

/// Finds it, or gives AWS's answer why it is not there.
pub fn find(context: &Context, name: &str, qualifier: Option<&str>) -> Result<Holder, Fault> {
    let (latest, revision) = names::function(context, name)?;
    let missing = || names::not_found(context, name, qualifier);
    let (document, revision) = match qualifier.map(Qualifier::parse) {
        None | Some(Qualifier::Latest) => (Document::Latest(Box::new(latest)), revision),
        // What has a dollar sign can name no alias.
        Some(Qualifier::Alias(alias)) if alias.contains('$') => return Err(missing()),
        Some(Qualifier::Alias(alias)) => {
            let found = context.document(&keys::alias(name, &alias))?;
            let (alias, revision) = found.ok_or_else(|| no_alias(context, name, &alias))?;
            (Document::Alias(Box::new(alias)), revision)
        }
        Some(version) => {
            let found = context.document(&keys::version(name, &version.to_string()))?;
            let (version, revision) = found.ok_or_else(missing)?;
            (Document::Version(Box::new(version)), revision)
        }
    };
    Ok(Holder { function: name.to_owned(), document, revision })
}

pub fn no_alias(context: &Context, name: &str, alias: &str) -> Fault {
    let arn = context.home.function_arn(name, Some(alias));
    fault("ResourceNotFoundException", format!("Cannot find alias arn: {arn}"))
}

/// Every holder of a function, `$LATEST` first.
pub fn all(context: &Context, name: &str) -> Result<Vec<Holder>, Fault> {
    let (latest, revision) = names::function(context, name)?;
    let holder = |document, revision| Holder { function: name.to_owned(), document, revision };
    let mut holders = vec![holder(Document::Latest(Box::new(latest)), revision)];
    for (key, _) in context.store.scan(&keys::versions_of(name), None, usize::MAX) {
        if let Some((version, revision)) = context.document(&key)? {
            holders.push(holder(Document::Version(Box::new(version)), revision));
        }
    }
    for (key, _) in context.store.scan(&keys::aliases_of(name), None, usize::MAX) {
        if let Some((alias, revision)) = context.document(&key)? {
            holders.push(holder(Document::Alias(Box::new(alias)), revision));
        }
    }
    Ok(holders)
}

impl Holder {
    pub fn attached(&self) -> &Attached {
        match &self.document {
            Document::Latest(function) => &function.attached,
            Document::Version(version) => &version.attached,
            Document::Alias(alias) => &alias.attached,
        }
    }

    pub fn attached_mut(&mut self) -> &mut Attached {
        match &mut self.document {
            Document::Latest(function) => &mut function.attached,
            Document::Version(version) => &mut version.attached,
            Document::Alias(alias) => &mut alias.attached,
        }
    }

    pub fn revision_id(&self) -> &str {
        match &self.document {
            Document::Latest(function) => &function.revision_id,
            Document::Version(version) => &version.revision_id,
            Document::Alias(alias) => &alias.revision_id,
        }
    }

    /// A change that callers who hold the old revision id are to notice.
    pub fn renew_revision_id(&mut self) {
        let place = match &mut self.document {
            Document::Latest(function) => &mut function.revision_id,
            Document::Version(version) => &mut version.revision_id,
            Document::Alias(alias) => &mut alias.revision_id,
        };
        *place = uuid();
    }

    /// The settings of what runs under it; of an alias those of the version it points to first.
    pub fn settings(&self, context: &Context) -> Result<FunctionConfiguration, Fault> {
        match &self.document {
            Document::Latest(function) => Ok(function.configuration.clone()),
            Document::Version(version) => Ok(version.publication.configuration.clone()),
            Document::Alias(alias) => find(context, &self.function, Some(&alias.version))?.settings(context),
        }
    }

    /// The qualifier; none for `$LATEST`.
    pub fn qualifier(&self) -> Option<&str> {
        match &self.document {
            Document::Latest(_) => None,
            Document::Version(version) => Some(&version.version),
            Document::Alias(alias) => Some(&alias.name),
        }
    }

    pub fn alias(&self) -> Option<&Alias> {
        match &self.document {
            Document::Alias(alias) => Some(alias),
            _ => None,
        }
    }

    pub fn is_version(&self) -> bool {
        matches!(self.document, Document::Version(_))
    }

    /// Its ARN; without a qualifier for `$LATEST`.
    pub fn arn(&self, context: &Context) -> String {
        context.home.function_arn(&self.function, self.qualifier())
    }

    fn key(&self) -> String {
        match self.qualifier() {
            None => keys::function(&self.function),
            Some(version) if self.is_version() => keys::version(&self.function, version),
            Some(alias) => keys::alias(&self.function, alias),
        }
    }

    /// Puts it back, unless it changed meanwhile.
    pub fn replace(&self) -> Transaction {
        let key = self.key();
        let transaction = Transaction::default().when(Precondition::Unchanged(key.clone(), self.revision));
        match &self.document {
            Document::Latest(function) => transaction.put(key, function),
            Document::Version(version) => transaction.put(key, version),
            Document::Alias(alias) => transaction.put(key, alias),
        }
    }
}

/// Changes what hangs on one qualifier, alone: what is checked is of the whole account.
pub async fn change_alone<T>(
    context: &Context,
    named: &names::Named,
    mut apply: impl FnMut(&mut Holder) -> Result<T, Fault>,
) -> Result<T, Fault> {
    context
        .change(|| {
            let mut holder = find(context, &named.name, named.qualifier.as_deref())?;
            let result = apply(&mut holder)?;
            Ok((holder.replace(), result))
        })
        .await
}

/// Changes what hangs on one qualifier.
pub async fn change<T>(
    context: &Context,
    named: &names::Named,
    mut apply: impl FnMut(&mut Holder) -> Result<T, Fault>,
) -> Result<T, Fault> {
    context
        .change_of(&named.name, || {
            let mut holder = find(context, &named.name, named.qualifier.as_deref())?;
            let result = apply(&mut holder)?;
            Ok((holder.replace(), result))
        })
        .await
}
