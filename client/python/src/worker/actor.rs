//! An actor of Python in its worker: made by its loader, then asked for its methods.
//!
//! The one thing to know: a plain actor's calls run on the thread that claims them; one that hosts its
//! calls is handed them, and for event loops that thread does without the interpreter, which the loops
//! are busy with. This file must not know how calls end.

use super::hosted::{self, CallInbox, HostedCall};
use super::*;
use raylet_client::binding::{Handed, Resident};

/// An actor of Python in its worker.
pub(super) struct Actor {
    name: &'static str,
    instance: Py<PyAny>,
    /// `raylet._private`'s part of it.
    loader: Py<PyAny>,
    hosting: Hosting,
    methods: HashMap<u64, Method>,
}

struct Method {
    name: &'static str,
    function: OnceLock<Py<PyAny>>,
}

impl Actor {
    pub(super) fn create(py: Python<'_>, call: &Running<'_>) -> Result<Actor, TaskError> {
        IS_ACTOR.store(true, Ordering::Relaxed);
        RESTARTS.store(call.attempt, Ordering::Relaxed);
        let class = "an actor";
        let (header, arguments) = header_of(call, || class)?;
        let definition = definition_of(py, class, call.ray, &header)?;
        let died = |error: PyErr| described_as_death(py, &error, class);
        let loader = hook(py, "load_actor").and_then(|hook| hook.call1((call.key, definition))).map_err(died)?;
        let name: String = loader.getattr("name").and_then(|name| name.extract()).map_err(died)?;
        let name = binding::set_name(call.key, &name);
        let _turn = Turn::begin(Current { key: call.key, name, attempt: call.attempt, result: None }, false);
        let died = |error: PyErr| described_as_death(py, &error, name);
        let (args, kwargs) = arguments_of(py, arguments, call).map_err(died)?;
        let kwargs = kwargs.unwrap_or_else(|| PyDict::new(py));
        let instance = loader.call_method1("create", (args, kwargs)).map_err(died)?;
        let names: Vec<String> =
            loader.call_method1("methods", (&instance,)).and_then(|names| names.extract()).map_err(died)?;
        let method = |method: &String| {
            let key = binding::key(method);
            let name = binding::set_name(key, method);
            (key, Method { name, function: OnceLock::new() })
        };
        let methods = names.iter().map(method).collect();
        let hosting = Hosting::of(&loader, &names).map_err(died)?;
        let (instance, loader) = (instance.unbind(), loader.unbind());
        Ok(Actor { name, instance, loader, hosting, methods })
    }

    fn function<'py>(&self, py: Python<'py>, method: &Method) -> PyResult<Bound<'py, PyAny>> {
        if let Some(function) = method.function.get() {
            return Ok(function.bind(py).clone());
        }
        let function = self.loader.bind(py).call_method1("method", (&self.instance, method.name))?;
        let _ = method.function.set(function.clone().unbind());
        Ok(function)
    }

    fn method(&self, key: u64) -> Result<&Method, TaskError> {
        let unknown = || unreadable(self.name, &format_args!("{} has no method of the key {key:#018x}", self.name));
        self.methods.get(&key).ok_or_else(unknown)
    }
}

/// A constructor's error is the death of its actor.
fn described_as_death(py: Python<'_>, error: &PyErr, name: &str) -> TaskError {
    let described = described(py, error, name, None);
    TaskError::foreign(TaskErrorKind::ActorDied, name, described.message(), described.payload().to_vec(), true)
}

impl Resident for Actor {
    fn is_host(&self) -> bool {
        !matches!(self.hosting, Hosting::No)
    }

    fn name(&self, key: u64) -> &'static str {
        self.methods.get(&key).map_or(self.name, |method| method.name)
    }

    fn call(&self, call: &Running<'_>, results: &mut dyn Results) -> Result<(), TaskError> {
        let method = self.method(call.key)?;
        Python::attach(|py| {
            let (header, arguments) = header_of(call, || method.name)?;
            let instance = self.instance.bind(py);
            let function = self.function(py, method);
            let function = function.map_err(|error| described(py, &error, method.name, Some(instance)))?;
            let current = Current { key: call.key, name: method.name, attempt: call.attempt, result: call.result };
            let _turn = Turn::begin(current, true);
            invoke(py, &function, method.name, Some(instance), call, arguments, header.ahead, results)
        })
    }

    fn take(&self, calls: Vec<Handed>) {
        let known = calls.into_iter().filter_map(|call| self.known(call));
        match &self.hosting {
            Hosting::No => unreachable!("a plain actor is handed nothing"),
            Hosting::Pools => Python::attach(|py| known.for_each(|call| self.submit(py, call))),
            Hosting::Loops(loops) => loops.put(known.collect()),
        }
    }

    fn finish(&self) {
        if self.is_host() {
            Python::attach(|py| {
                if let Err(error) = self.loader.bind(py).call_method0("finish") {
                    error.print(py);
                }
            });
        }
        // Before the raylet hears of the end: it waits for nobody then.
        Python::attach(|py| exit(py, 0));
    }
}

impl Actor {
    /// A call of a method that there is; of another the results get their error.
    fn known(&self, call: Handed) -> Option<Handed> {
        match self.method(call.running().key) {
            Ok(_) => Some(call),
            Err(error) => {
                call.finish(|_, _| Err(error));
                None
            }
        }
    }

    /// Hands a call to the threads of its group.
    fn submit(&self, py: Python<'_>, call: Handed) {
        let Some(call) = HostedCall::of(py, call) else { return };
        if let Err(error) = self.loader.bind(py).call_method1("submit", (call,)) {
            // The call says so itself when it is dropped.
            error.print(py);
        }
    }
}

/// Who runs the calls of an actor.
enum Hosting {
    /// The thread that claims them, one by one.
    No,
    /// Pools of threads.
    Pools,
    /// Event loops.
    Loops(Loops),
}

impl Hosting {
    /// As the loader of an actor with these methods says.
    fn of(loader: &Bound<'_, PyAny>, methods: &[String]) -> PyResult<Hosting> {
        let mode: String = loader.getattr("mode")?.extract()?;
        if mode == "plain" {
            return Ok(Hosting::No);
        }
        hosted::begin();
        match mode == "loops" {
            true => Loops::of(loader, methods).map(Hosting::Loops),
            false => Ok(Hosting::Pools),
        }
    }
}

/// An inbox for each concurrency group; the first is the default one's.
struct Loops {
    inboxes: Vec<Py<CallInbox>>,
    by_group: HashMap<String, usize>,
    /// Of methods that belong to a group.
    by_method: HashMap<u64, usize>,
}

impl Loops {
    fn of(loader: &Bound<'_, PyAny>, methods: &[String]) -> PyResult<Loops> {
        let inboxes: Vec<(Option<String>, Py<CallInbox>)> = loader.call_method0("inboxes")?.extract()?;
        let named = inboxes.iter().enumerate().filter_map(|(at, (group, _))| Some((group.clone()?, at)));
        let by_group: HashMap<String, usize> = named.collect();
        let mut by_method = HashMap::new();
        for method in methods {
            let group: Option<String> = loader.call_method1("group_of", (method,))?.extract()?;
            if let Some(at) = group.and_then(|group| by_group.get(&group).copied()) {
                by_method.insert(binding::key(method), at);
            }
        }
        Ok(Loops { inboxes: inboxes.into_iter().map(|(_, inbox)| inbox).collect(), by_group, by_method })
    }

    /// Puts each call where its group's loop finds it, without the interpreter: the loops have that.
    fn put(&self, calls: Vec<Handed>) {
        let mut sorted: Vec<Vec<Handed>> = self.inboxes.iter().map(|_| Vec::new()).collect();
        for call in calls {
            sorted[self.inbox_of(&call)].push(call);
        }
        for (inbox, calls) in self.inboxes.iter().zip(sorted) {
            inbox.get().put(calls);
        }
    }

    fn inbox_of(&self, call: &Handed) -> usize {
        let running = call.running();
        let group = Header::read(running.arguments).and_then(|(header, _)| header.group);
        let at = group.map_or_else(|| self.by_method.get(&running.key), |group| self.by_group.get(group));
        at.copied().unwrap_or_default()
    }
}
