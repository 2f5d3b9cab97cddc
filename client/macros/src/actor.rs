//! `#[remote]` on the impl block of an actor.
//!
//! The one thing to know: the block stays as it is. Beside it comes a type with the methods as a
//! handle has them, to which `ActorHandle` derefs, and one static that tells workers of the class.
//! This file must not know how arguments are packed.

use crate::settings::Settings;
use crate::signature::{Signature, own};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::{Attribute, Error, Ident, ImplItem, ImplItemFn, ItemImpl, Receiver, Type, Visibility};

/// A method as the handle has it.
struct Method {
    name: Ident,
    vis: Visibility,
    docs: Vec<Attribute>,
    signature: Signature,
    is_exclusive: bool,
    num_returns: Option<usize>,
}

struct Constructor {
    vis: Visibility,
    docs: Vec<Attribute>,
    signature: Signature,
}

struct Class {
    name: Ident,
    type_: TokenStream,
    constructor: Constructor,
    methods: Vec<Method>,
}

pub(crate) fn expand(settings: &Settings, mut block: ItemImpl) -> syn::Result<TokenStream> {
    let class = read(settings, &mut block)?;
    let krate = settings.krate();
    let (created, handled, registered) = (created(&class), handled(&class), registered(settings, &class));
    Ok(quote! {
        #block

        const _: () = {
            use #krate::__private as __ray;

            #created
            #handled
            #registered
        };
    })
}

/// Takes the block apart, and the settings of its methods away.
fn read(settings: &Settings, block: &mut ItemImpl) -> syn::Result<Class> {
    let (name, type_) = (check(settings, block)?, block.self_ty.to_token_stream());
    let (mut constructor, mut methods) = (None, Vec::new());
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        let own_settings = take_settings(function)?;
        match function.sig.receiver().cloned() {
            Some(receiver) => methods.push(method(&type_, function, &receiver, own_settings)?),
            None if function.sig.ident == "new" => constructor = Some(self::constructor(&type_, function)?),
            None if own_settings.is_some() => {
                let text = "`remote` goes on methods: this function has no `self`";
                return Err(Error::new_spanned(&function.sig, text));
            }
            None => {}
        }
    }
    let missing = || Error::new_spanned(&block.self_ty, "an actor is made by `fn new(..) -> Self`, which is missing");
    Ok(Class { name, type_, constructor: constructor.ok_or_else(missing)?, methods })
}

/// The type's name.
fn check(settings: &Settings, block: &ItemImpl) -> syn::Result<Ident> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new_spanned(path, "`remote` goes on the actor's own impl block, not on a trait's"));
    }
    if !block.generics.params.is_empty() {
        let text = "an actor cannot be generic: workers find it by its name; write one for each type";
        return Err(Error::new_spanned(&block.generics, text));
    }
    if settings.num_returns.is_some() {
        return Err(Error::new(Span::call_site(), "`num_returns` goes on a method: `#[remote(num_returns = 2)]`"));
    }
    if let Some(word) = &settings.stream {
        return Err(Error::new(word.span(), "`stream` goes on a method: `#[remote(stream)]`"));
    }
    let name = match &*block.self_ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.clone()),
        _ => None,
    };
    name.ok_or_else(|| Error::new_spanned(&block.self_ty, "an actor is a type with a name"))
}

/// What `#[remote(..)]` on the method says; the compiler does not see it.
fn take_settings(function: &mut ImplItemFn) -> syn::Result<Option<Settings>> {
    let is_ours = |attribute: &Attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "remote");
    let Some(at) = function.attrs.iter().position(is_ours) else { return Ok(None) };
    let attribute = function.attrs.remove(at);
    let settings: Settings = attribute.parse_args()?;
    match settings.first_option() {
        Some(option) => {
            let text = "a method has no options of its own: they go on the impl block or, for calls, on the handle";
            Err(Error::new_spanned(option, text))
        }
        None => Ok(Some(settings)),
    }
}

fn docs(function: &ImplItemFn) -> Vec<Attribute> {
    function.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned().collect()
}

fn method(
    type_: &TokenStream,
    function: &ImplItemFn,
    receiver: &Receiver,
    settings: Option<Settings>,
) -> syn::Result<Method> {
    if receiver.reference.is_none() {
        let text = "the actor stays where it is: a method takes `&self` or `&mut self`";
        return Err(Error::new_spanned(receiver, text));
    }
    let signature = Signature::of(&function.sig, Some(type_), settings.as_ref())?;
    let num_returns = settings.and_then(|settings| settings.num_returns);
    signature.check_parts(num_returns)?;
    Ok(Method {
        name: function.sig.ident.clone(),
        vis: function.vis.clone(),
        docs: docs(function),
        signature,
        is_exclusive: receiver.mutability.is_some(),
        num_returns,
    })
}

fn constructor(type_: &TokenStream, function: &ImplItemFn) -> syn::Result<Constructor> {
    if let Some(keyword) = &function.sig.asyncness {
        return Err(Error::new_spanned(keyword, "a constructor is not async: wait in a method"));
    }
    let signature = Signature::of(&function.sig, Some(type_), None)?;
    Ok(Constructor { vis: function.vis.clone(), docs: docs(function), signature })
}

/// `remote` and `options` of the type itself.
fn created(class: &Class) -> TokenStream {
    let [ray, arguments] = ["ray", "arguments"].map(own);
    let Class { type_, constructor, .. } = class;
    let Constructor { vis, docs, signature } = constructor;
    let (accepted, pack) = (signature.accepted(), signature.pack(&quote!(#ray), &arguments));
    let remote = |receiver: TokenStream, options: TokenStream| {
        quote! {
            #(#docs)*
            #[doc = ""]
            #[doc = "Makes it an actor, in a worker of its own; returns at once."]
            #[allow(clippy::too_many_arguments)]
            #vis fn remote(
                #receiver
                #ray: &__ray::Raylet,
                #accepted
            ) -> ::core::result::Result<__ray::ActorHandle<#type_>, __ray::SubmitError> {
                #pack
                __ray::create(#ray, #arguments, #options)
            }
        }
    };
    let (plain, with_options) = (
        remote(quote!(), quote!(::core::option::Option::None)),
        remote(quote!(&self,), quote!(::core::option::Option::Some(&self.0))),
    );
    quote! {
        impl #type_ {
            #plain

            #[doc = "The same class; its actor has these options, and where they are silent the attribute's."]
            #vis fn options(options: __ray::Options) -> WithOptions {
                WithOptions(options)
            }
        }

        #[doc = "An actor class with options for its actor."]
        #[derive(Clone, Debug)]
        pub struct WithOptions(__ray::Options);

        impl WithOptions {
            #with_options
        }
    }
}

/// The methods as a handle has them.
fn handled(class: &Class) -> TokenStream {
    let methods = class.methods.iter().enumerate().map(|(position, method)| {
        let arguments = own("arguments");
        let Method { name, vis, docs, signature, num_returns, .. } = method;
        let accepted = signature.accepted();
        let (refs, value) = (signature.refs(*num_returns), signature.value());
        let pack = signature.pack(&quote!(self.0.ray()), &arguments);
        let call = match num_returns {
            Some(parts) => quote!(self.0.call_parts::<#value>(&METHODS[#position], #arguments, #parts)),
            None if signature.is_stream() => quote!(self.0.call_stream(&METHODS[#position], #arguments)),
            None => quote!(self.0.call(&METHODS[#position], #arguments)),
        };
        quote! {
            #(#docs)*
            #[doc = ""]
            #[doc = "Has the actor run it; returns a reference to its result at once."]
            #[allow(clippy::too_many_arguments)]
            #vis fn #name(&self, #accepted) -> ::core::result::Result<#refs, __ray::SubmitError> {
                #pack
                #call
            }
        }
    });
    let (type_, handle) = (&class.type_, format_ident!("{}Methods", class.name));
    let summary = format!("The methods of [`{}`] as a handle has them.", class.name);
    quote! {
        #[doc = #summary]
        #[derive(Debug)]
        pub struct #handle(__ray::RawActor);

        impl #handle {
            #(#methods)*
        }

        impl __ray::Methods for #handle {
            fn over(raw: __ray::RawActor) -> Self {
                #handle(raw)
            }

            fn raw(&self) -> &__ray::RawActor {
                &self.0
            }
        }

        impl __ray::Actor for #type_ {
            type Methods = #handle;

            fn class() -> &'static __ray::Class {
                &CLASS
            }
        }
    }
}

/// What workers know of the class.
fn registered(settings: &Settings, class: &Class) -> TokenStream {
    let [ray, arguments] = ["ray", "arguments"].map(own);
    let type_ = &class.type_;
    let create = class.constructor.signature.construct(&quote!(<#type_>::new), &quote!(NAME));
    let (options, count) = (settings.options(), class.methods.len());
    let methods = class.methods.iter().map(|method| known(type_, method));
    quote! {
        const NAME: &str = ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#type_));

        #[allow(unused_mut)]
        fn create(
            #ray: &__ray::Raylet,
            mut #arguments: __ray::Incoming<'_>,
        ) -> ::core::result::Result<__ray::State, __ray::TaskError> {
            #create
        }

        fn options() -> __ray::Options {
            #options
        }

        static METHODS: [__ray::Method; #count] = [#(#methods),*];

        #[__ray::linkme::distributed_slice(__ray::CLASSES)]
        #[linkme(crate = __ray::linkme)]
        static CLASS: __ray::Class =
            __ray::Class { key: __ray::key(NAME), name: NAME, create, methods: &METHODS, options };
    }
}

/// What workers know of a method.
fn known(type_: &TokenStream, method: &Method) -> TokenStream {
    let [state, ray, arguments, results] = ["state", "ray", "arguments", "results"].map(own);
    let Method { name, signature, is_exclusive, num_returns, .. } = method;
    let (downcast, mutable) = match is_exclusive {
        true => (quote!(__ray::state_mut::<#type_>(#state)), quote!(mut)),
        false => (quote!(__ray::state::<#type_>(#state)), quote!()),
    };
    let kind = match (is_exclusive, signature.is_async) {
        (true, false) => quote!(Exclusive),
        (true, true) => quote!(ExclusiveAsync),
        (false, false) => quote!(Shared),
        (false, true) => quote!(SharedAsync),
    };
    let run = signature.run(&quote!(#state.#name), &quote!(NAME), *num_returns);
    let (output, run) = match signature.is_async {
        false => (quote!(::core::result::Result<(), __ray::TaskError>), run),
        true => (quote!(__ray::TaskFuture<'a>), quote!(::std::boxed::Box::pin(async move { #run }))),
    };
    let text = signature.text();
    let path = quote!(::core::concat!(
        ::core::module_path!(),
        "::",
        ::core::stringify!(#type_),
        "::",
        ::core::stringify!(#name)
    ));
    quote! {
        {
            const NAME: &str = #path;

            #[allow(unused_mut)]
            fn run<'a>(
                #state: &'a #mutable (dyn ::core::any::Any + Send + Sync),
                #ray: &'a __ray::Raylet,
                mut #arguments: __ray::Incoming<'a>,
                #results: &'a mut dyn __ray::Results,
            ) -> #output {
                let #state = #downcast;
                #run
            }

            __ray::Method {
                key: __ray::key(::core::concat!(#path, #text)),
                name: NAME,
                body: __ray::MethodBody::#kind(run),
            }
        }
    }
}
