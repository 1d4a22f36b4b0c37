module farebox.dev/stripe-schema

go 1.24

require github.com/stripe/stripe-mock v0.203.0
