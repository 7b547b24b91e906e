"""What policies answer, as arrays: actions, and scores of the choices that an action consists of."""
