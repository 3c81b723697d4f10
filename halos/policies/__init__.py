"""The sync policies that come with halos; delete any, the rest works on."""
