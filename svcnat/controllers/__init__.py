"""Pure: what follows from the objects a person wrote: addresses, Pods, EndpointSlices; written through a World."""
