//! Data forms (XEP-0004), as far as queries and their descriptions need them.

use crate::ns;
use crate::xml::{Element, escape};

/// Fields of a submitted form: name and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    fields: Vec<(String, Vec<String>)>,
}

impl Form {
    /// Reads `<x type='submit'/>` inside `parent`. `None` when there is none of this `FORM_TYPE`.
    pub fn read(parent: &Element, form_type: &str) -> Option<Self> {
        let x = parent.child("x", ns::DATA_FORMS)?;
        let fields = x.children().filter(|f| f.is("field", ns::DATA_FORMS)).map(|f| {
            let values = f.children().filter(|v| v.is("value", ns::DATA_FORMS)).map(Element::text).collect();
            (f.attr("var").unwrap_or_default().to_owned(), values)
        });
        let form = Self { fields: fields.collect() };
        (form.value("FORM_TYPE") == Some(form_type)).then_some(form)
    }

    /// The first value of a field.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().map(String::as_str)
    }

    /// All values of a field.
    pub fn values(&self, name: &str) -> &[String] {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice()).unwrap_or_default()
    }

    /// Names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(n, _)| n.as_str())
    }
}

/// Writes an empty form of this type with fields given as `(type, name)`.
pub fn describe(form_type: &str, fields: &[(&str, &str)]) -> String {
    let mut out = format!(
        "<x xmlns='{}' type='form'><field type='hidden' var='FORM_TYPE'><value>{}</value></field>",
        ns::DATA_FORMS,
        escape(form_type)
    );
    for (kind, name) in fields {
        out.push_str(&format!("<field type='{kind}' var='{}'/>", escape(name)));
    }
    out.push_str("</x>");
    out
}
