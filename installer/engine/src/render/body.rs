//! One playbook entry to tasks: evaluation, rendering, strict reading.

use crate::error::EngineError;
use crate::playbooks::Library;
use maxim_model::playbook::PlaybookTask;
use maxim_model::task::{Task, TaskKind};
use serde_json::{Map, Value};
use std::error::Error;
use tera::Tera;

/// Renders entries for one host.
pub struct Renderer<'a> {
    tera: Tera,
    context: tera::Context,
    /// Values that must not be seen.
    secrets: &'a [String],
}

impl<'a> Renderer<'a> {
    /// A renderer over a library's templates with the context of a host.
    pub fn new(library: &Library, context: &Value, secrets: &'a [String]) -> Result<Self, EngineError> {
        let mut tera = Tera::default();
        // Nothing rendered here is HTML.
        tera.autoescape_on(Vec::new());
        tera.add_raw_templates(library.templates())
            .map_err(|error| EngineError::failed("render", format!("templates: {}", chain(&error))))?;
        let context = tera::Context::from_value(context.clone())
            .map_err(|error| EngineError::failed("render", chain(&error)))?;
        Ok(Self { tera, context, secrets })
    }

    /// The tasks of one entry: none when its `when` is false, several with `for_each`.
    pub fn tasks(&mut self, component: &str, entry: &PlaybookTask) -> Result<Vec<Task>, String> {
        if !entry.when.is_empty() {
            match self.expression(&entry.when)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(Vec::new()),
                other => return Err(format!("`when` gives {other}, not true or false")),
            }
        }
        if entry.for_each.is_empty() {
            return Ok(vec![self.task(component, entry, &entry.id)?]);
        }
        let Value::Array(items) = self.expression(&entry.for_each)? else {
            return Err("`for_each` gives no list".into());
        };
        let mut tasks = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            self.context.insert("item", &item);
            let task = self.task(component, entry, &format!("{}-{index}", entry.id));
            self.context.remove("item");
            tasks.push(task?);
        }
        Ok(tasks)
    }

    fn task(&mut self, component: &str, entry: &PlaybookTask, id: &str) -> Result<Task, String> {
        let mut kinds = entry.body.iter();
        let (Some((kind, body)), None) = (kinds.next(), kinds.next()) else {
            return Err("exactly one key must name the kind of task".into());
        };
        let kind = kind.as_str().ok_or("the kind of task is not a text")?;
        let body = serde_json::to_value(body).map_err(|error| error.to_string())?;
        let mut body = self.value(body)?;
        if matches!(kind, "file" | "unit") {
            self.fill_content(&mut body)?;
        }
        let mut whole = Map::new();
        whole.insert(kind.to_owned(), body);
        let kind: TaskKind =
            serde_json::from_value(Value::Object(whole)).map_err(|error| format!("{kind}: {error}"))?;
        self.refuse_visible_secrets(&kind)?;
        let names = |renderer: &mut Self, list: &[String]| -> Result<Vec<String>, String> {
            list.iter().map(|name| renderer.text(name)).collect()
        };
        Ok(Task {
            id: format!("{component}/{id}"),
            component: component.to_owned(),
            stage: entry.stage,
            restarts: names(self, &entry.restarts)?,
            reloads: names(self, &entry.reloads)?,
            deadline_seconds: entry.deadline,
            kind,
        })
    }

    fn fill_content(&mut self, body: &mut Value) -> Result<(), String> {
        let Some(object) = body.as_object_mut() else { return Ok(()) };
        let Some(template) = object.remove("template") else { return Ok(()) };
        let name = template.as_str().ok_or("`template` is not a text")?;
        if object.contains_key("content") {
            return Err("it has both `template` and `content`".into());
        }
        let content = self.tera.render(name, &self.context).map_err(|error| chain(&error))?;
        object.insert("content".into(), Value::String(content));
        Ok(())
    }

    /// Renders every string in a value.
    fn value(&mut self, value: Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => match single_expression(&text) {
                Some(expression) => self.expression(expression)?,
                None => Value::String(self.text(&text)?),
            },
            Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Value::Object(object) => Value::Object(
                object
                    .into_iter()
                    .map(|(key, item)| Ok((self.text(&key)?, self.value(item)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => other,
        })
    }

    fn text(&mut self, text: &str) -> Result<String, String> {
        if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
            return Ok(text.to_owned());
        }
        self.tera.render_str(text, &self.context).map_err(|error| chain(&error))
    }

    /// The value of an expression, with its type.
    fn expression(&mut self, expression: &str) -> Result<Value, String> {
        let template = format!(
            "{{% set value_of_expression = {expression} %}}{{{{ value_of_expression | json_encode() | safe }}}}"
        );
        let json = self.tera.render_str(&template, &self.context).map_err(|error| chain(&error))?;
        serde_json::from_str(&json).map_err(|error| format!("`{expression}`: {error}"))
    }

    /// A secret in a place that is shown in plans, diffs, unit files or process lists is a mistake of the playbook.
    fn refuse_visible_secrets(&self, kind: &TaskKind) -> Result<(), String> {
        let visible: Vec<&str> = match kind {
            TaskKind::File(file) if !file.sensitive => vec![file.path.as_str(), file.content.expose()],
            TaskKind::File(file) => vec![file.path.as_str()],
            TaskKind::Unit(unit) => vec![unit.content.as_str()],
            TaskKind::Command(command) => {
                command.argv.iter().chain(&command.unless).map(String::as_str).collect()
            }
            _ => Vec::new(),
        };
        // Very short values would be found everywhere; generated ones have at least 20 characters.
        let shows = |text: &&str| {
            self.secrets.iter().any(|secret| secret.len() >= 8 && text.contains(secret.as_str()))
        };
        if visible.iter().any(shows) {
            return Err(
                "a secret would be visible: make it a `file` with `sensitive: true`, or pass it by a file"
                    .into(),
            );
        }
        Ok(())
    }
}

/// The inside of `{{ … }}` when the text is nothing else.
fn single_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%")).then(|| inner.trim())
}

/// Tera says what is wrong only in the sources of its errors.
fn chain(error: &tera::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Renderer;
    use crate::playbooks::Library;
    use maxim_model::playbook::PlaybookTask;
    use maxim_model::task::TaskKind;
    use serde_json::{Value, json};

    fn render(entry: &str, context: Value) -> Result<Vec<maxim_model::task::Task>, String> {
        let templates = [("im/im.yaml".to_owned(), "domain: {{ cluster.domain }}\n".to_owned())];
        let library = Library::from_texts([], templates).unwrap();
        let secrets = vec!["planted-secret-7431".to_owned()];
        let entry: PlaybookTask = serde_yaml::from_str(entry).unwrap();
        Renderer::new(&library, &context, &secrets).unwrap().tasks("im", &entry)
    }

    #[test]
    fn a_template_becomes_content_and_types_are_kept() {
        let tasks = render(
            "{id: config, restarts: [maxim-im], file: {path: '{{ p }}/im.yaml', template: im/im.yaml, mode: '0640', sensitive: '{{ 1 == 1 }}'}}",
            json!({"p": "/etc/maxim", "cluster": {"domain": "im.acme.example"}}),
        )
        .unwrap();
        let TaskKind::File(file) = &tasks[0].kind else { panic!("{:?}", tasks[0].kind) };
        assert_eq!(file.content.expose(), "domain: im.acme.example\n");
        assert_eq!(
            (tasks[0].id.as_str(), file.path.as_str(), file.sensitive),
            ("im/config", "/etc/maxim/im.yaml", true)
        );
    }

    #[test]
    fn for_each_and_when() {
        let context = json!({"cluster": {"domain": "d"}, "folders": ["a", "b"], "wanted": false});
        let tasks = render(
            "{id: f, for_each: folders, directory: {path: '/x/{{ item }}', mode: '0750'}}",
            context.clone(),
        )
        .unwrap();
        assert_eq!(tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["im/f-0", "im/f-1"]);
        assert!(
            render("{id: f, when: wanted, directory: {path: /x, mode: '0750'}}", context).unwrap().is_empty()
        );
    }

    #[test]
    fn mistakes_are_refused_with_their_cause() {
        let context = || json!({"cluster": {"domain": "d"}, "secrets": {"s": "planted-secret-7431"}});
        let undefined =
            render("{id: f, directory: {path: '/x/{{ missing }}', mode: '0750'}}", context()).unwrap_err();
        assert!(undefined.contains("missing"), "{undefined}");
        let unknown =
            render("{id: f, directory: {path: /x, mode: '0750', color: red}}", context()).unwrap_err();
        assert!(unknown.contains("color"), "{unknown}");
        let shown =
            render("{id: f, file: {path: /x, mode: '0600', content: 'p={{ secrets.s }}'}}", context())
                .unwrap_err();
        assert!(shown.contains("secret would be visible") && !shown.contains("7431"), "{shown}");
        render(
            "{id: f, file: {path: /x, mode: '0600', sensitive: true, content: 'p={{ secrets.s }}'}}",
            context(),
        )
        .unwrap();
        let argv = render("{id: f, command: {argv: [tool, '-p{{ secrets.s }}']}}", context()).unwrap_err();
        assert!(argv.contains("secret would be visible"), "{argv}");
    }
}
