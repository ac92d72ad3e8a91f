ann > connect /
ann < accept
ann < json {"ticket": "$ticket", "seat": null}
ann > text 4A
ann > close
ann > connect /?ticket=$ticket
ann < accept
ann < json {"ticket": "$ticket", "seat": "4A"}
ann > close
