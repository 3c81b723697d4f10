"""Jobs in flight at once, in processes of their own: the same bits as `inline`, sooner."""
