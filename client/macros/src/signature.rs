//! Parameters and result of a function or method, and the code that packs and reads them.
//!
//! The one thing to know: names that this makes are of the macro's own hygiene, so that a user's
//! parameter may be called `ray` or `arguments`. This file must not know what is done with a call.

use crate::settings::Settings;
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericArgument, Ident, Pat, PathArguments, ReturnType, Type};

/// Parameters that a call can have.
const PARAMETERS_MAX: usize = 8;

pub(crate) struct Signature {
    /// Whether the first parameter is `&Raylet`.
    takes_ray: bool,
    parameters: Vec<Parameter>,
    returned: TokenStream,
    /// The value's type, where the returned one is a `Result`.
    fallible: Option<TokenStream>,
    /// Where an iterator is returned whose items are objects of their own.
    items: Option<Items>,
    pub(crate) is_async: bool,
}

/// Of a stream.
struct Items {
    /// An item's type, if all is well.
    value: TokenStream,
    /// An item is a `Result`.
    are_fallible: bool,
    /// How many may be there unread.
    ahead: TokenStream,
}

struct Parameter {
    name: Ident,
    type_: TokenStream,
}

impl Signature {
    /// Of a function or method; `Self` in it means `this`.
    pub(crate) fn of(
        signature: &syn::Signature,
        this: Option<&TokenStream>,
        settings: Option<&Settings>,
    ) -> syn::Result<Signature> {
        check(signature)?;
        let mut inputs: Vec<_> = signature.inputs.iter().filter_map(typed).collect();
        let takes_ray = inputs.first().is_some_and(|input| is_ray(&input.ty));
        let parameters = inputs.split_off(usize::from(takes_ray));
        if let Some(extra) = parameters.get(PARAMETERS_MAX) {
            let text = format!("a call has at most {PARAMETERS_MAX} arguments: put some into one struct or tuple");
            return Err(Error::new_spanned(extra, text));
        }
        let parameters = parameters.iter().enumerate().map(|(position, input)| parameter(position, input, this));
        let stream = settings.filter(|settings| settings.stream.is_some());
        let (returned, fallible, items) = match stream {
            Some(settings) => streamed(signature, this, settings)?,
            None => returned(&signature.output, this).map(|(returned, fallible)| (returned, fallible, None))?,
        };
        let parameters = parameters.collect::<syn::Result<_>>()?;
        Ok(Signature { takes_ray, parameters, returned, fallible, items, is_async: signature.asyncness.is_some() })
    }

    /// Parameters as `remote` has them.
    pub(crate) fn accepted(&self) -> TokenStream {
        let each = self.parameters.iter().map(|Parameter { name, type_ }| quote!(#name: impl __ray::Argument<#type_>));
        quote!(#(#each),*)
    }

    /// Packs what `remote` was given into `arguments`.
    pub(crate) fn pack(&self, ray: &TokenStream, arguments: &Ident) -> TokenStream {
        let each =
            self.parameters.iter().map(|Parameter { name, type_ }| quote!(#arguments.give::<#type_>(#ray, #name)?;));
        let mutable = (!self.parameters.is_empty()).then(|| quote!(mut));
        quote!(let #mutable #arguments = __ray::Arguments::new(); #(#each)*)
    }

    /// Reads `arguments` into variables, and what `function` is then given. The variables have
    /// names of their own: a parameter may be called as its function is.
    fn takes(&self) -> (TokenStream, TokenStream) {
        let [ray, arguments] = ["ray", "arguments"].map(own);
        let variables: Vec<_> =
            (0..self.parameters.len()).map(|position| own(&format!("argument_{position}"))).collect();
        let takes = self.parameters.iter().zip(&variables).map(|(Parameter { name, type_ }, variable)| {
            let text = name.unraw().to_string();
            quote!(let #variable = #arguments.take::<#type_>(#ray, #text)?;)
        });
        let given = self.takes_ray.then(|| quote!(#ray,));
        (quote!(#(#takes)*), quote!(#given #(#variables),*))
    }

    /// Reads `arguments`, calls `function` and seals what it returned.
    pub(crate) fn run(&self, function: &TokenStream, name: &TokenStream, parts: Option<usize>) -> TokenStream {
        let [arguments, results, value] = ["arguments", "results", "value"].map(own);
        let count = self.parameters.len();
        let (takes, given) = self.takes();
        let wait = self.is_async.then(|| quote!(.await));
        let unwrap = self.fallible.is_some().then(|| quote!(let #value = __ray::outcome(#name, #value)?;));
        let seal = match (parts, &self.items) {
            (Some(_), _) => quote!(__ray::Parts::seal_each(#value, #name, #results)),
            (None, Some(items)) => items.push_each(&value, name, &results),
            (None, None) => quote!(__ray::seal_one(#name, #value, #results)),
        };
        quote! {
            #arguments.expect(#count)?;
            #takes
            let #value = #function(#given)#wait;
            #unwrap
            #seal
        }
    }

    /// As `run`, of a constructor, which returns what it made.
    pub(crate) fn construct(&self, function: &TokenStream, name: &TokenStream) -> TokenStream {
        let [arguments, value] = ["arguments", "value"].map(own);
        let count = self.parameters.len();
        let (takes, given) = self.takes();
        let unwrap = self.fallible.is_some().then(|| quote!(let #value = __ray::outcome(#name, #value)?;));
        quote! {
            #arguments.expect(#count)?;
            #takes
            let #value = #function(#given);
            #unwrap
            ::core::result::Result::Ok(::std::boxed::Box::new(#value))
        }
    }

    /// What a call gives to read.
    pub(crate) fn value(&self) -> &TokenStream {
        self.fallible.as_ref().unwrap_or(&self.returned)
    }

    /// What `remote` returns, if all is well.
    pub(crate) fn refs(&self, parts: Option<usize>) -> TokenStream {
        if let Some(Items { value, .. }) = &self.items {
            return quote!(__ray::RefStream<#value>);
        }
        let value = self.value();
        match parts {
            Some(_) => quote!(<#value as __ray::Parts>::Refs),
            None => quote!(__ray::ObjectRef<#value>),
        }
    }

    /// Whether its result is a stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.items.is_some()
    }

    /// Types and result, as text that tells one signature from another.
    pub(crate) fn text(&self) -> String {
        let types = self.parameters.iter().map(|parameter| &parameter.type_);
        let returned = &self.returned;
        quote!((#(#types),*) -> #returned).to_string()
    }

    /// Whether the tuple that is returned has as many parts as are declared, where that shows.
    pub(crate) fn check_parts(&self, parts: Option<usize>) -> syn::Result<()> {
        let Some(parts) = parts else { return Ok(()) };
        let value = self.value();
        match syn::parse2::<Type>(value.clone()) {
            Ok(Type::Tuple(tuple)) if tuple.elems.len() != parts => {
                let text = format!("`num_returns` is {parts}, and this tuple has {} parts", tuple.elems.len());
                Err(Error::new_spanned(value, text))
            }
            _ => Ok(()),
        }
    }
}

impl Items {
    /// Makes an object of each item, until nobody reads on.
    fn push_each(&self, value: &Ident, name: &TokenStream, results: &Ident) -> TokenStream {
        let (item, ahead) = (own("item"), &self.ahead);
        let unwrap = self.are_fallible.then(|| quote!(let #item = __ray::outcome(#name, #item)?;));
        quote! {
            for #item in #value {
                #unwrap
                if !__ray::push_one(#name, #item, #ahead, #results)? {
                    break;
                }
            }
            ::core::result::Result::Ok(())
        }
    }
}

/// A name that no user's name is.
pub(crate) fn own(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn typed(input: &FnArg) -> Option<&syn::PatType> {
    match input {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    }
}

fn check(signature: &syn::Signature) -> syn::Result<()> {
    if !signature.generics.params.is_empty() {
        let text = "a remote function cannot be generic: workers find it by its name; write one for each type";
        return Err(Error::new_spanned(&signature.generics, text));
    }
    if let Some(keyword) = &signature.unsafety {
        return Err(Error::new_spanned(keyword, "a remote function cannot be unsafe: who submits it cannot vouch"));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "a remote function has Rust's own calling convention"));
    }
    Ok(())
}

fn is_ray(type_: &Type) -> bool {
    let Type::Reference(reference) = type_ else { return false };
    let Type::Path(path) = &*reference.elem else { return false };
    reference.mutability.is_none() && path.path.segments.last().is_some_and(|segment| segment.ident == "Raylet")
}

fn parameter(position: usize, input: &syn::PatType, this: Option<&TokenStream>) -> syn::Result<Parameter> {
    match &*input.ty {
        Type::Reference(reference) => {
            let text = "an argument comes from another process, so the function owns it: take it by value \
                        (only a first `&Raylet` is lent)";
            return Err(Error::new_spanned(reference, text));
        }
        Type::ImplTrait(generic) => {
            let text = "a remote function cannot be generic: workers find it by its name; name the type";
            return Err(Error::new_spanned(generic, text));
        }
        _ => {}
    }
    let name = match &*input.pat {
        Pat::Ident(pattern) => pattern.ident.clone(),
        other => format_ident!("argument_{position}", span = other.span()),
    };
    Ok(Parameter { name, type_: named(input.ty.to_token_stream(), this) })
}

fn returned(output: &ReturnType, this: Option<&TokenStream>) -> syn::Result<(TokenStream, Option<TokenStream>)> {
    let ReturnType::Type(_, type_) = output else { return Ok((quote!(()), None)) };
    match &**type_ {
        Type::ImplTrait(generic) => {
            let text = "the result travels to another process, so its type must have a name; items that come \
                        one after the other are a stream: `#[remote(stream)]`";
            Err(Error::new_spanned(generic, text))
        }
        Type::Reference(reference) => {
            let text = "the result travels to another process: return it by value";
            Err(Error::new_spanned(reference, text))
        }
        type_ => {
            let tokens = named(type_.to_token_stream(), this);
            let fallible = ok_type(type_).map(|ok| match ok {
                Some(ok) => named(ok.to_token_stream(), this),
                None => quote_spanned!(type_.span()=> <#tokens as __ray::Fallible>::Ok),
            });
            Ok((tokens, fallible))
        }
    }
}

type Returned = (TokenStream, Option<TokenStream>, Option<Items>);

/// As `returned`, of a stream: `impl Iterator<Item = T>`, or a `Result` of one.
fn streamed(signature: &syn::Signature, this: Option<&TokenStream>, settings: &Settings) -> syn::Result<Returned> {
    if let Some(keyword) = &signature.asyncness {
        return Err(Error::new_spanned(
            keyword,
            "a stream is an iterator that runs in its own time: leave `async` out",
        ));
    }
    let wanted = || {
        let text = "a stream is returned as `impl Iterator<Item = T>`, or as a `Result` of one";
        Error::new_spanned(signature, text)
    };
    let ReturnType::Type(_, type_) = &signature.output else { return Err(wanted()) };
    let inner = ok_type(type_);
    let iterator = inner.as_ref().map_or(Some(&**type_), |ok| *ok).ok_or_else(wanted)?;
    let item = item_type(iterator).ok_or_else(wanted)?;
    let returned = named(type_.to_token_stream(), this);
    let fallible = inner.map(|_| named(iterator.to_token_stream(), this));
    let tokens = named(item.to_token_stream(), this);
    let (value, are_fallible) = match ok_type(item) {
        Some(Some(ok)) => (named(ok.to_token_stream(), this), true),
        Some(None) => (quote_spanned!(item.span()=> <#tokens as __ray::Fallible>::Ok), true),
        None => (tokens, false),
    };
    Ok((returned, fallible, Some(Items { value, are_fallible, ahead: settings.ahead() })))
}

/// Of a type written `impl Iterator<Item = T>`: `T`.
fn item_type(type_: &Type) -> Option<&Type> {
    let Type::ImplTrait(iterator) = type_ else { return None };
    iterator.bounds.iter().find_map(|bound| {
        let syn::TypeParamBound::Trait(bound) = bound else { return None };
        let last = bound.path.segments.last().filter(|segment| segment.ident == "Iterator")?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(item) if item.ident == "Item" => Some(&item.ty),
            _ => None,
        })
    })
}

/// Of a type written `..Result<T, ..>`: `T`, if it is written.
fn ok_type(type_: &Type) -> Option<Option<&Type>> {
    let Type::Path(path) = type_ else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Some(None) };
    Some(arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(type_) => Some(type_),
        _ => None,
    }))
}

/// The tokens with `this` in the place of `Self`.
fn named(tokens: TokenStream, this: Option<&TokenStream>) -> TokenStream {
    let Some(this) = this else { return tokens };
    let replace = |token: TokenTree| match token {
        TokenTree::Ident(ident) if ident == "Self" => this.clone(),
        TokenTree::Group(group) => {
            let inner = named(group.stream(), Some(this));
            let mut made = proc_macro2::Group::new(group.delimiter(), inner);
            made.set_span(group.span());
            TokenTree::Group(made).into()
        }
        other => other.into(),
    };
    tokens.into_iter().map(replace).collect()
}
