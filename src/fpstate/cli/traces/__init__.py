"""The actions of ``fpstate trace``, a module each."""
