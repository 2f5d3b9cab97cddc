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

#[derive(Default)]
pub(crate) struct Settings {
    krate: Option<Path>,
    /// How many objects a call makes, where it is said.
    pub(crate) num_returns: Option<usize>,
    /// The result is a stream; the word that says so.
    pub(crate) stream: Option<Ident>,
    /// How many items of a stream may be there unread, where it is said.
    ahead: Option<LitInt>,
    options: Vec<(Ident, Expr)>,
}

impl Parse for Settings {
    fn parse(input: ParseStream<'_>) -> syn::Result<Settings> {
        let mut settings = Settings::default();
        while !input.is_empty() {
            let name = input.call(Ident::parse_any)?;
            if name == "stream" {
                settings.stream = Some(name);
            } else {
                input.parse::<Token![=]>()?;
                settings.set(name, input)?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    /// What goes together.
    fn check(&self) -> syn::Result<()> {
        match (&self.stream, &self.ahead) {
            (Some(word), _) if self.num_returns.is_some() => {
                Err(syn::Error::new(word.span(), "a stream has as many items as it has: leave `num_returns` out"))
            }
            (None, Some(ahead)) => Err(syn::Error::new(
                ahead.span(),
                "`ahead` is how far a stream runs ahead of its reader: say `stream`, too",
            )),
            _ => Ok(()),
        }
    }

    /// How many items of a stream may be there unread.
    pub(crate) fn ahead(&self) -> TokenStream {
        self.ahead.as_ref().map_or_else(|| quote!(__ray::AHEAD), |ahead| quote!(#ahead))
    }

    fn set(&mut self, name: Ident, input: ParseStream<'_>) -> syn::Result<()> {
        match name.to_string().as_str() {
            "crate" => self.krate = Some(input.call(Path::parse_mod_style)?),
            "num_returns" => self.num_returns = Some(num_returns(&input.parse()?)?),
            "ahead" => self.ahead = Some(input.parse()?),
            other if OPTIONS.contains(&other) => self.options.push((name, input.parse()?)),
            other => {
                let known = OPTIONS.join(", ");
                let text = format!("`{other}` is no setting; there are: num_returns, crate, {known}, stream, ahead");
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
