//! What the generated tables are made of. All of it is constant data.

/// A shape's place in its service's shape table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeNumber(pub u16);

/// One AWS service: its operations, the shapes they use, the errors they may answer.
#[derive(Debug)]
pub struct Service {
    /// The name in the credential scope of a signature, such as `lambda`.
    pub signing_name: &'static str,
    /// The date that names the version of the API; a query request repeats it as `Version`.
    pub api_version: &'static str,
    /// The namespace of the service's XML; `None` for services that speak JSON.
    pub xml_namespace: Option<&'static str>,
    pub operations: &'static [Operation],
    pub shapes: &'static [Shape],
    pub errors: &'static [ErrorShape],
}

impl Service {
    pub fn shape(&self, number: ShapeNumber) -> &'static Shape {
        &self.shapes[usize::from(number.0)]
    }

    pub fn operation(&self, name: &str) -> Option<&'static Operation> {
        self.operations.iter().find(|operation| operation.name == name)
    }

    pub fn error(&self, code: &str) -> Option<&'static ErrorShape> {
        self.errors.iter().find(|error| error.code == code)
    }
}

#[derive(Debug)]
pub struct Operation {
    pub name: &'static str,
    pub method: &'static str,
    /// The path with its labels in braces; a label that ends in `+` takes slashes too.
    pub path: &'static str,
    /// A query pair that belongs to the address itself, such as `find=LayerVersion`; usually empty.
    pub constant_query: &'static str,
    /// HTTP status of a success.
    pub status: u16,
    pub input: Option<ShapeNumber>,
    pub output: Option<ShapeNumber>,
    /// The element a query service wraps its output in, such as `GetRoleResult`.
    pub result_wrapper: Option<&'static str>,
}

#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub kind: Kind,
    /// Bound on the value of a number, the length of a string, list, map or blob.
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// A Java regular expression the whole string must match.
    pub pattern: Option<&'static str>,
    /// The values of an enumeration, in the model's order; empty for anything else.
    pub values: &'static [&'static str],
    pub sensitive: bool,
}

#[derive(Debug)]
pub enum Kind {
    Structure(&'static [Member]),
    String,
    Integer,
    Double,
    /// Seconds since the epoch, with fractions, as JSON carries them and the typed structures hold them.
    Timestamp,
    Boolean,
    Blob,
    List(ShapeNumber),
    Map {
        key: ShapeNumber,
        value: ShapeNumber,
    },
}

impl Shape {
    /// A structure's member of this name.
    pub fn member(&self, name: &str) -> Option<&'static Member> {
        match self.kind {
            Kind::Structure(members) => members.iter().find(|member| member.name == name),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub struct Member {
    pub name: &'static str,
    pub shape: ShapeNumber,
    pub required: bool,
    pub location: Location,
}

/// Where a member travels in a REST request or answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Location {
    Body,
    /// The member is the whole body.
    Payload,
    Uri(&'static str),
    Query(&'static str),
    Header(&'static str),
    Status,
}

#[derive(Debug)]
pub struct ErrorShape {
    /// The code on the wire, such as `NoSuchEntity`.
    pub code: &'static str,
    pub status: u16,
    /// `Message` or `message`, as this error spells it.
    pub message_member: &'static str,
}
