"""Token mixers: `base` is the contract, conf/mixers/ the list, `parts` what they share."""
