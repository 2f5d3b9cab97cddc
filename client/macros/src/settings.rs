//! What stands in the attribute's parentheses.
//!
//! The one thing to know: options are not understood here; each becomes a call of the method of
//! `Options` by that name, and the compiler checks its value. This file must not know functions.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Expr, Ident, LitInt, Path, Token};

/// Methods of `Options` that an attribute may name.
const OPTIONS: &[&str] = &[
    "num_cpus",
    "num_gpus",
    "memory_bytes",
    "max_retries",
    "retry_exceptions",
    "max_calls",
    "max_restarts",
    "max_task_retries",
    "max_concurrency",
    "timeout",
    "name",
];
/// More references than this are better one object that lists them.
const RETURNS_MAX: usize = 4096;

pub(crate) struct Settings {
    krate: Option<Path>,
    /// How many objects a call makes, where it is said.
    pub(crate) num_returns: Option<usize>,
    options: Vec<(Ident, Expr)>,
}

impl Parse for Settings {
    fn parse(input: ParseStream<'_>) -> syn::Result<Settings> {
        let mut settings = Settings { krate: None, num_returns: None, options: Vec::new() };
        while !input.is_empty() {
            let name = input.call(Ident::parse_any)?;
            input.parse::<Token![=]>()?;
            settings.set(name, input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(settings)
    }
}

impl Settings {
    fn set(&mut self, name: Ident, input: ParseStream<'_>) -> syn::Result<()> {
        match name.to_string().as_str() {
            "crate" => self.krate = Some(input.call(Path::parse_mod_style)?),
            "num_returns" => self.num_returns = Some(num_returns(&input.parse()?)?),
            other if OPTIONS.contains(&other) => self.options.push((name, input.parse()?)),
            other => {
                let known = OPTIONS.join(", ");
                let text = format!("`{other}` is no setting; there are: num_returns, crate, {known}");
                return Err(syn::Error::new(name.span(), text));
            }
        }
        Ok(())
    }

    /// Where the client is.
    pub(crate) fn krate(&self) -> TokenStream {
        self.krate.as_ref().map_or_else(|| quote!(::raylet_client), |path| quote!(#path))
    }

    /// The options as an expression.
    pub(crate) fn options(&self) -> TokenStream {
        let calls = self.options.iter().map(|(name, value)| quote!(.#name(#value)));
        quote!(__ray::Options::new() #(#calls)*)
    }

    /// The first option, if there is one: methods have none.
    pub(crate) fn first_option(&self) -> Option<&Ident> {
        self.options.first().map(|(name, _)| name)
    }
}

fn num_returns(literal: &LitInt) -> syn::Result<usize> {
    let count = literal.base10_parse()?;
    if (1..=RETURNS_MAX).contains(&count) {
        return Ok(count);
    }
    let text = format!("`num_returns` is 1 to {RETURNS_MAX}: for more, or none, return a `Vec` of references");
    Err(syn::Error::new(literal.span(), text))
}
