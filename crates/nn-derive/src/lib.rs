//! `#[derive(Parameters)]`; see `nn::Parameters`. A crate of its own because a derive macro needs one.
#![forbid(unsafe_code)]

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Member, Result, Type, parse_quote};

/// Writes `nn::Parameters` for a struct: its parameters are those of its fields, under the fields' names.
///
/// A field is a parameter or a buffer (`nn::Parameter`), anything with parameters, or an `Option`, `Vec`,
/// array, `Box` or `BTreeMap<String, _>` of such. `#[parameters(skip)]` leaves a field out. All have one type
/// of elements, that of the first field; `#[parameters(elem = f32)]` on the struct names it where
/// no field does.
#[proc_macro_derive(Parameters, attributes(parameters))]
pub fn derive_parameters(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// What stands in `#[parameters(..)]`.
#[derive(Default)]
struct Options {
    skip: bool,
    elem: Option<Type>,
}

impl Options {
    /// Reads the attributes of a struct, or of a field.
    fn read(attributes: &[Attribute], on_field: bool) -> Result<Self> {
        let mut options = Options::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("parameters")) {
            attribute.parse_nested_meta(|meta| {
                if on_field && meta.path.is_ident("skip") {
                    options.skip = true;
                    return Ok(());
                }
                if !on_field && meta.path.is_ident("elem") {
                    options.elem = Some(meta.value()?.parse()?);
                    return Ok(());
                }
                let known = if on_field { "`skip`" } else { "`elem = TYPE`" };
                Err(meta.error(format!("expected {known}")))
            })?;
        }
        Ok(options)
    }
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(name, "Parameters is derived for structs only"));
    };
    let mut fields: Vec<(Member, &Type)> = Vec::new();
    for (member, field) in data.fields.members().zip(&data.fields) {
        if !Options::read(&field.attrs, true)?.skip {
            fields.push((member, &field.ty));
        }
    }
    let elem = match (Options::read(&input.attrs, false)?.elem, fields.first()) {
        (Some(elem), _) => elem,
        (None, Some((_, first))) => parse_quote!(<#first as ::nn::Parameters>::Elem),
        (None, None) => {
            let unit = matches!(data.fields, Fields::Unit);
            let what = if unit { "no fields" } else { "no field that is not skipped" };
            let say =
                format!("{name} has {what}: name the elements with #[parameters(elem = f32)]");
            return Err(Error::new_spanned(name, say));
        }
    };
    let visits = |method: TokenStream, borrow: TokenStream| {
        let visits = fields.iter().map(move |(member, ty)| {
            let path = match member {
                Member::Named(name) => name.to_string().trim_start_matches("r#").to_owned(),
                Member::Unnamed(index) => index.index.to_string(),
            };
            // Named by its trait and type, so that the error for a field without parameters is that.
            quote! {
                visitor.scope(#path, |visitor| {
                    <#ty as ::nn::Parameters>::#method(#borrow self.#member, visitor)
                });
            }
        });
        quote!(#(#visits)* let _ = visitor;)
    };
    let visit = visits(quote!(visit), quote!(&));
    let visit_mut = visits(quote!(visit_mut), quote!(&mut));
    let (generics, arguments, conditions) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::nn::Parameters for #name #arguments #conditions {
            type Elem = #elem;

            fn visit<'visited>(
                &'visited self,
                visitor: &mut ::nn::Visitor<'_, &'visited ::nn::Parameter<Self::Elem>>,
            ) {
                #visit
            }

            fn visit_mut<'visited>(
                &'visited mut self,
                visitor: &mut ::nn::Visitor<'_, &'visited mut ::nn::Parameter<Self::Elem>>,
            ) {
                #visit_mut
            }
        }
    })
}
