"""GFlowNet-EM: latent-variable models whose latents are structures."""
