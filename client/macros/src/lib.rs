//! The attribute `remote` and the derive `Value` of the raylet's Rust client.
//!
//! The one thing to know: what is written here is thin: it types arguments and results, and calls
//! functions of `raylet_client::__private`, where everything happens. Use both through
//! `raylet_client`, which documents them. This crate must not decide anything at run time.

mod actor;
mod function;
mod settings;
mod signature;

use proc_macro::TokenStream;
use quote::quote;
use settings::Settings;
use syn::{DeriveInput, Item, parse_macro_input};

/// Makes a function a task, or the methods of an impl block those of an actor.
///
/// # On a function
///
/// The function stays what it is: `f(arguments..)` runs it here and now. Beside it, with the same
/// visibility, comes a type of its name, as actors have one; `use` of the name imports both:
///
/// * `f::remote(&ray, arguments..)` has a worker run it, and returns an `ObjectRef` of its result at
///   once. A parameter of type `T` accepts `T`, `&T`, `ObjectRef<T>` and `&ObjectRef<T>`; references
///   are awaited and read before the function runs.
/// * `f::options(Options::new()..)` has the same `remote`, with these options.
///
/// Locals may have the function's name, as in `let f = f::remote(&ray)?`; a module or type beside it
/// may not. A function inside another function can be remote.
///
/// It may be `async`, has up to 8 parameters, all owned, and may have a first one of type `&Raylet`,
/// by which it submits tasks of its own: that one is not given in `remote`. A returned type that is
/// written `Result<T, ..>` gives an `ObjectRef<T>`, and the error (anything with `Display`) becomes a
/// `TaskError`, as does a panic.
///
/// ```
/// use raylet_client::prelude::*;
///
/// #[remote]
/// fn half(x: u64) -> Result<u64> {
///     if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd").into()) }
/// }
///
/// #[remote]
/// fn quarter(ray: &Raylet, x: u64) -> Result<u64> {
///     let half_of_it = half::remote(ray, x)?;
///     Ok(ray.get(&half::remote(ray, &half_of_it)?)?)
/// }
///
/// # fn main() -> Result<()> {
/// let ray = Raylet::init(Config { mode: Mode::Local, ..Config::default() })?;
/// assert_eq!(half(12)?, 6);
/// assert_eq!(ray.get(&quarter::remote(&ray, 12)?)?, 3);
/// assert!(ray.get(&quarter::remote(&ray, 6)?).unwrap_err().to_string().contains("3 is odd"));
/// # Ok(())
/// # }
/// ```
///
/// # On an impl block
///
/// `new` makes the actor, and each method of `&self` or `&mut self` is one of the handle's; other
/// functions stay what they are. `&mut self` methods run alone; `&self` ones may run beside others
/// where `max_concurrency` says so. The type must be `Send + Sync`.
///
/// ```
/// use raylet_client::prelude::*;
///
/// struct Counter(u64);
///
/// #[remote]
/// impl Counter {
///     fn new(start: u64) -> Counter {
///         Counter(start)
///     }
///     fn add(&mut self, n: u64) -> u64 {
///         self.0 += n;
///         self.0
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let ray = Raylet::init(Config { mode: Mode::Local, ..Config::default() })?;
/// let counter: ActorHandle<Counter> = Counter::remote(&ray, 5)?;
/// counter.add(3)?;
/// assert_eq!(ray.get(&counter.add(1)?)?, 9);
/// # Ok(())
/// # }
/// ```
///
/// # Settings
///
/// `#[remote(num_cpus = 0.5, max_retries = 5)]` gives options that a call's own go before: any method
/// of `Options` by its name. `num_returns = 2` on a function or method makes each part of the
/// returned tuple or `Vec` an object: `remote` then returns as many references.
/// `stream` on a function or method that returns `impl Iterator<Item = T>` makes each item an object as
/// it comes: `remote` then returns a `RefStream<T>`, an iterator of references. At most `ahead = 16` of
/// them (0: any number) wait for their reader. An item written `Result<T, ..>` ends the stream with its
/// error.
/// `crate = path` says where `raylet_client` is, if not at `::raylet_client`.
#[proc_macro_attribute]
pub fn remote(settings: TokenStream, item: TokenStream) -> TokenStream {
    let settings = parse_macro_input!(settings as Settings);
    let made = match parse_macro_input!(item as Item) {
        Item::Fn(function) => function::expand(&settings, &function),
        Item::Impl(block) => actor::expand(&settings, block),
        other => Err(syn::Error::new_spanned(other, "`remote` goes on a function, or on the impl block of an actor")),
    };
    made.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a type that serde reads and writes an argument, a result, and something to put.
///
/// ```
/// use raylet_client::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Value)]
/// struct Job {
///     name: String,
///     inputs: Vec<ObjectRef<u64>>,
/// }
/// ```
#[proc_macro_derive(Value)]
pub fn value(item: TokenStream) -> TokenStream {
    let mut item = parse_macro_input!(item as DeriveInput);
    let name = &item.ident;
    if item.generics.type_params().next().is_some() {
        let (_, arguments, _) = item.generics.split_for_impl();
        let bound = syn::parse_quote!(
            #name #arguments: ::raylet_client::__private::Serialize + ::raylet_client::__private::DeserializeOwned
        );
        item.generics.make_where_clause().predicates.push(bound);
    }
    let (parameters, arguments, bounds) = item.generics.split_for_impl();
    quote! {
        impl #parameters ::raylet_client::__private::SerdeValue for #name #arguments #bounds {}
    }
    .into()
}
