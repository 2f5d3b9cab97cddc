//! `#[remote]` on a function.
//!
//! The one thing to know: the function becomes the method `call` of a type of its name, and one
//! static tells workers of it. This file must not know how arguments are packed.

use crate::settings::Settings;
use crate::signature::{Signature, own};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Ident, ItemFn, Visibility};

pub(crate) fn expand(settings: &Settings, function: ItemFn) -> syn::Result<TokenStream> {
    let signature = Signature::of(&function.sig, None)?;
    signature.check_parts(settings.num_returns)?;
    let ItemFn { attrs, vis, sig, block } = &function;
    let (docs, others): (Vec<_>, Vec<_>) = attrs.iter().partition(|attribute| is_doc(attribute));
    let (name, inputs, output, asyncness) = (&sig.ident, &sig.inputs, &sig.output, &sig.asyncness);
    let krate = settings.krate();
    let remotes = remotes(settings, &signature, name, vis);
    let registered = registered(settings, &signature, name);
    let summary = format!("The remote function `{name}`: `{name}.remote(&ray, ..)` has a worker run it.");
    let call = "Runs it here, in this thread.";
    Ok(quote! {
        #(#docs)*
        #[doc = ""]
        #[doc = #summary]
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        #vis struct #name;

        const _: () = {
            use #krate::__private as __ray;

            impl #name {
                #[doc = #call]
                #[allow(clippy::too_many_arguments)]
                #(#others)*
                #vis #asyncness fn call(&self, #inputs) #output #block
            }

            #remotes
            #registered
        };
    })
}

fn is_doc(attribute: &Attribute) -> bool {
    attribute.path().is_ident("doc")
}

/// `remote`, of the function and of the function with options.
fn remotes(settings: &Settings, signature: &Signature, name: &Ident, vis: &Visibility) -> TokenStream {
    let [ray, arguments] = ["ray", "arguments"].map(own);
    let (accepted, value) = (signature.accepted(), signature.value());
    let refs = signature.refs(settings.num_returns);
    let pack = signature.pack(&quote!(#ray), &arguments);
    let remote = |options: TokenStream| {
        let submit = match settings.num_returns {
            Some(parts) => quote!(__ray::submit_parts::<#value>(#ray, &FUNCTION, #arguments, #options, #parts)),
            None => quote!(__ray::submit_one(#ray, &FUNCTION, #arguments, #options)),
        };
        quote! {
            #[doc = "Has a worker run it; returns a reference to its result at once."]
            #[allow(clippy::too_many_arguments)]
            #vis fn remote(
                &self,
                #ray: &__ray::Raylet,
                #accepted
            ) -> ::core::result::Result<#refs, __ray::SubmitError> {
                #pack
                #submit
            }
        }
    };
    let (plain, with_options) =
        (remote(quote!(::core::option::Option::None)), remote(quote!(::core::option::Option::Some(&self.0))));
    quote! {
        impl #name {
            #plain

            #[doc = "The same function; calls have these options, and where they are silent the attribute's."]
            #vis fn options(&self, options: __ray::Options) -> WithOptions {
                WithOptions(options)
            }
        }

        #[doc = "A remote function with options for its calls."]
        #[derive(Clone, Debug)]
        pub struct WithOptions(__ray::Options);

        impl WithOptions {
            #with_options
        }
    }
}

/// What workers know of the function.
fn registered(settings: &Settings, signature: &Signature, name: &Ident) -> TokenStream {
    let [ray, arguments, results] = ["ray", "arguments", "results"].map(own);
    let run = signature.run(&quote!(#name.call), &quote!(NAME), settings.num_returns);
    let (options, text) = (settings.options(), signature.text());
    let (body, run) = match signature.is_async {
        false => (
            quote!(__ray::Body::Sync(run)),
            quote! {
                #[allow(unused_mut)]
                fn run(
                    #ray: &__ray::Raylet,
                    mut #arguments: __ray::Incoming<'_>,
                    #results: &mut dyn __ray::Results,
                ) -> ::core::result::Result<(), __ray::TaskError> {
                    #run
                }
            },
        ),
        true => (
            quote!(__ray::Body::Async(run)),
            quote! {
                #[allow(unused_mut)]
                fn run<'a>(
                    #ray: &'a __ray::Raylet,
                    mut #arguments: __ray::Incoming<'a>,
                    #results: &'a mut dyn __ray::Results,
                ) -> __ray::TaskFuture<'a> {
                    ::std::boxed::Box::pin(async move { #run })
                }
            },
        ),
    };
    quote! {
        const NAME: &str = ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name));

        #run

        fn options() -> __ray::Options {
            #options
        }

        #[__ray::linkme::distributed_slice(__ray::FUNCTIONS)]
        #[linkme(crate = __ray::linkme)]
        static FUNCTION: __ray::Function = __ray::Function {
            key: __ray::key(::core::concat!(
                ::core::module_path!(),
                "::",
                ::core::stringify!(#name),
                #text
            )),
            name: NAME,
            place: (::core::file!(), ::core::line!()),
            body: #body,
            options,
        };
    }
}
