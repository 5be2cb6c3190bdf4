"""The methods that BBQRec is compared with, a file each: config, model, paper, and where ours departs from it."""
