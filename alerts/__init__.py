"""Service level objectives, the rules made from them, the hand-written rules, runbooks and their proofs."""
