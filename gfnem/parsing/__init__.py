"""Trees over sentences: grammars, latent spaces, policies, exact inference, corpora, scores."""
