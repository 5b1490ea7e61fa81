"""The gate and what it needs: inputs, reference, verdict."""
